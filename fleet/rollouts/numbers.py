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
_COMMITTED: Final = str(Phase.COMMITTED)
_BAD: Final = ENDED - {_COMMITTED}
#: Behind these the self-test was passed.
_TESTED: Final = frozenset(map(str, (Phase.SELF_TESTED, Phase.PROBATION, Phase.COMMITTED, Phase.ROLLED_BACK)))


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
    released = [it for it in evidence.released(rollout.wave) if it.told_at is not None or not it.preempted]
    ways = _ways(rollout, released)
    told = Counter(way for way, member in zip(ways, released, strict=True) if member.told_at is not None)
    known = Counter(ways)
    bad = [it for it, way in zip(released, ways, strict=True) if way in _BAD and it.told_at is not None]
    took = [it for it, way in zip(released, ways, strict=True) if way == _COMMITTED and it.active]
    latest = now - timedelta(seconds=limits.silence_seconds)
    mismatched = sum(_why(member)[0] == E_GOLDEN_MISMATCH for member in bad)
    return Numbers(
        at=now,
        wave=rollout.wave,
        limits=limits,
        released=len(released),
        committed=known[_COMMITTED],
        over=bool(released) and ENDED.issuperset(known),
        ended=sum(number for way, number in told.items() if way in ENDED),
        bad=dict(Counter(member.forward for member in bad)),
        first=_first(bad),
        examined=mismatched + sum(number for way, number in told.items() if way in _TESTED),
        mismatched=mismatched,
        took=len(took),
        silent=sum([member.seen_at is not None and member.seen_at < latest for member in took]),
        usual_failures=evidence.usual_failures,
        accuracy=evidence.accuracy,
        candidate=evidence.candidate,
        control=evidence.control,
        drift=evidence.drift,
        trials=evidence.trials,
        hook=evidence.hook,
        shadow=shadowing.judge(rollout, released),
    )


def _ways(rollout: Rollout, members: Sequence[Member]) -> Sequence[str]:
    """How each way forward stands. One that waits for the switch of all with the release staged did what was asked so
    far. A column of its own: there may be a hundred thousand, and each is looked at several times."""
    ways = [member.state if member.recalled_at is None else member.forward for member in members]
    if rollout.strategy != "blue-green":
        return ways
    return [_COMMITTED if member.staged else way for member, way in zip(members, ways, strict=True)]


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
