"""Everything that the gate judges by, as numbers: counted once from the evidence, stored with the verdict.

`gate.decide` takes nothing else, so that a stored verdict can be checked by deciding again.

I/O: none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter

from fleet.rollouts import shadowing
from fleet.rollouts.states import ENDED, DriftSign, Evidence, HookAnswer, Limits, Member, Rollout, Vitals
from fleet.rollouts.trials import Trials
from shared.messages import Phase

E_GOLDEN_MISMATCH: Final = "E_GOLDEN_MISMATCH"  # what a device says when its self-test gives other outputs
#: Behind these the self-test was passed.
_TESTED: Final = frozenset({Phase.SELF_TESTED, Phase.PROBATION, Phase.COMMITTED, Phase.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is known of the released waves at one instant."""

    at: datetime
    wave: int
    limits: Limits
    released: int = 0  # devices of the released waves
    committed: int = 0
    over: bool = False  # every one of them has ended
    ended: int = 0  # of those that were told
    bad: Mapping[str, int] | None = None  # how these ended when not well -> how many
    first: Mapping[str, str] | None = None  # the same -> one of them and its reason
    examined: int = 0  # devices whose self-test is known
    mismatched: int = 0
    took: int = 0  # active devices that have the release
    silent: int = 0  # of these
    usual_failures: float | None = None
    accuracy: float | None = None
    candidate: Vitals = field(default_factory=Vitals)
    control: Vitals = field(default_factory=Vitals)
    drift: DriftSign | None = None
    trials: Trials = field(default_factory=Trials)
    hook: HookAnswer | None = None
    shadow: shadowing.Judged | None = None


def count(rollout: Rollout, evidence: Evidence, now: datetime) -> Numbers:
    """The numbers of this evidence."""
    limits = rollout.limits
    released = [member for member in evidence.released(rollout.wave) if not member.preempted]
    ended = [member for member in released if member.touched and member.forward in ENDED]
    bad = [member for member in ended if member.forward != Phase.COMMITTED]
    took = [member for member in released if member.forward == Phase.COMMITTED and member.active]
    latest = now - timedelta(seconds=limits.silence_seconds)
    mismatched = sum(_why(member)[0] == E_GOLDEN_MISMATCH for member in bad)
    return Numbers(
        at=now,
        wave=rollout.wave,
        limits=limits,
        released=len(released),
        committed=sum(member.forward == Phase.COMMITTED for member in released),
        over=bool(released) and all(member.ended for member in released),
        ended=len(ended),
        bad=dict(Counter(member.forward for member in bad)),
        first=_first(bad),
        examined=mismatched + sum(member.touched and member.forward in _TESTED for member in released),
        mismatched=mismatched,
        took=len(took),
        silent=sum(member.seen_at is not None and member.seen_at < latest for member in took),
        usual_failures=evidence.usual_failures,
        accuracy=evidence.accuracy,
        candidate=evidence.candidate,
        control=evidence.control,
        drift=evidence.drift,
        trials=evidence.trials,
        hook=evidence.hook,
        shadow=shadowing.judge(rollout, released),
    )


def _why(member: Member) -> tuple[str | None, str | None]:
    return member.outcome_reason or member.reason, member.outcome_detail or member.detail


def _first(bad: Sequence[Member]) -> dict[str, str]:
    """Kind, and `any` -> the first device that ended so, with its reason."""
    found: dict[str, str] = {}
    for member in bad:
        text = f"{member.device}: {': '.join(filter(None, _why(member))) or member.forward}"
        found.setdefault(str(member.forward), text)
        found.setdefault("any", text)
    return found


_FORM: Final = TypeAdapter(Numbers)


def to_json(numbers: Numbers) -> dict[str, Any]:
    """`from_json(to_json(n)) == n`."""
    found: dict[str, Any] = _FORM.dump_python(numbers, mode="json")
    return found


def from_json(body: Mapping[str, Any]) -> Numbers:
    """Inverse of `to_json`.

    Raises:
        ValueError: not written by us.
    """
    return _FORM.validate_python(body)
