"""All comparisons of one rollout with the version before: kinds of events x (all devices, each hardware class).

    errors    failed requests, over requests
    slow      results above what was the device's own 90th percentile, over results
    crashes   restarts of the worker and falling silent, at most two of one device, over time
    wrong     answers that feedback calls wrong, over labelled answers

State between looks is sums only, so that it is saved with the time up to which windows were taken in.

I/O: none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from fleet.rollouts import counting

Kind: TypeAlias = Literal["errors", "slow", "crashes", "wrong"]


@dataclass(frozen=True, slots=True)
class Design:
    """How one kind is tested. Without a tolerance of its own it has the rollout's."""

    ratios: tuple[float, ...]
    tolerance: float | None
    one: str  # event, in words
    many: str


DESIGNS: Final[Mapping[Kind, Design]] = {
    "errors": Design(counting.RATIOS, None, "failed request", "failed requests"),
    "slow": Design(counting.FREQUENT_RATIOS, 0.05, "slow answer", "slow answers"),
    "crashes": Design(counting.RARE_RATIOS, None, "crash", "crashes"),
    "wrong": Design(counting.RATIOS, None, "wrong answer", "wrong answers"),
}
#: The scope of all devices together; the others are hardware classes.
ALL: Final = "all"
#: What the pooled test gets of the level of a kind; its classes share the rest.
POOLED: Final = 0.9
#: Restarts and silences of one device that count: two devices' worth need two devices.
CRASHES_A_DEVICE: Final = 2


@dataclass(frozen=True, slots=True)
class Amounts:
    """One kind in one hardware class during one interval, on both sides."""

    candidate: float = 0.0  # events
    control: float = 0.0
    candidate_exposure: float = 0.0
    control_exposure: float = 0.0
    candidate_due: float = 0.0  # events that the devices' histories let expect
    control_due: float = 0.0

    def plus(self, other: "Amounts") -> "Amounts":
        """Both together."""
        return Amounts(
            self.candidate + other.candidate,
            self.control + other.control,
            self.candidate_exposure + other.candidate_exposure,
            self.control_exposure + other.control_exposure,
            self.candidate_due + other.candidate_due,
            self.control_due + other.control_due,
        )

    @property
    def share(self) -> float:
        """Of the events, those that the candidate's devices would have."""
        return self.candidate_due / self.due if self.due > 0 else 0.0

    @property
    def due(self) -> float:
        """Of both sides."""
        return self.candidate_due + self.control_due


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind in one scope, up to now."""

    logs: tuple[float, ...]  # log E_r
    seen: Amounts = Amounts()
    dispersion: float = 1.0
    waiting: Amounts = Amounts()  # came while one side was not heard of; counts with what follows

    @property
    def log_e(self) -> float:
        """log E."""
        return float(counting.evidence(self.logs))

    @property
    def ratio(self) -> float | None:
        """How many times as many events as their histories and the control let expect; None without any control."""
        seen = self.seen
        if min(seen.candidate_due, seen.control_due, seen.control) <= 0:
            return None
        return (seen.candidate / seen.candidate_due) / (seen.control / seen.control_due)


Interval: TypeAlias = Mapping[Kind, Mapping[str, Amounts]]  # kind -> hardware class -> what happened


@dataclass(frozen=True, slots=True)
class Doubt:
    """What makes counts say less than they seem to: bursts, and a past that was short."""

    phi: float = 1.0
    candidate_known: float = math.inf  # events in the past of these devices, that their rates come from
    control_known: float = math.inf

    def at(self, candidate_due: float) -> float:
        """phi after so many events were due: a rate from `k` events is wrong by 1 / sqrt(k), whatever comes later."""
        return max(1.0, self.phi) * (1 + candidate_due * (1 / self.candidate_known + 1 / self.control_known))


Doubts: TypeAlias = Mapping[Kind, Mapping[str, Doubt]]  # kind -> scope


@dataclass(frozen=True, slots=True)
class Trials:
    """Every comparison, by kind and scope."""

    tests: Mapping[Kind, Mapping[str, Trial]] = field(default_factory=dict)

    def after(self, interval: Interval, doubts: Doubts, tolerance: float) -> "Trials":
        """With one more interval taken in."""
        tests = {kind: dict(found) for kind, found in self.tests.items()}
        for kind, classes in interval.items():
            pooled = Amounts()
            for amounts in classes.values():
                pooled = pooled.plus(amounts)
            mine = tests.setdefault(kind, {})
            for scope, amounts in {ALL: pooled, **classes}.items():
                doubt = doubts.get(kind, {}).get(scope, Doubt())
                mine[scope] = after(mine.get(scope), DESIGNS[kind], amounts, doubt, tolerance)
        return Trials(tests)


def after(before: Trial | None, design: Design, amounts: Amounts, doubt: Doubt, tolerance: float) -> Trial:
    """One test with one more interval."""
    known = before or Trial((0.0,) * len(design.ratios))
    allowed = tolerance if design.tolerance is None else design.tolerance
    seen, due = known.seen.plus(amounts), known.waiting.plus(amounts)
    phi = doubt.at(seen.candidate_due)
    if not 0 < due.share < 1:
        return replace(known, seen=seen, dispersion=phi, waiting=due)
    more = counting.gains(
        due.candidate,
        due.control,
        due.share,
        tolerance=allowed,
        ratios=design.ratios,
        dispersion=phi,
    )
    logs = tuple(float(old + new) for old, new in zip(known.logs, more, strict=True))
    return Trial(logs, seen, phi)


def limit(level: float, scope: str, classes: int) -> float:
    """log E from which on a test rings: its part of the kind's level."""
    part = POOLED if scope == ALL else (1 - POOLED) / max(1, classes)
    return math.log(1 / (level * part))
