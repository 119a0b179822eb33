"""How well a release does, from answers whose truth is known, and how fast, against the device's own past.

Every ratio comes with Wilson's interval; an alarm needs all of the interval to be beyond the threshold, so that few
labels never raise one. Formulas and sources: docs/telemetry.md.

I/O: none.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from fleet.settings import FleetSettings
from shared.messages import LAST_CLASS
from shared.sketches import LATENCY_RATIO, Latency

#: One-sided 99.9 %: a look a minute at a thousand devices must not cry wolf.
Z: Final = 3.09
#: Latencies that are watched: what each is called, and the share of requests that lie above it, by definition.
TAIL: Final = 0.05
HALF: Final = 0.5
_TIMES: Final = {"latency": "p95", "median latency": "median latency"}

Pair = tuple[int, int]  # true class, predicted class


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and where the truth lies in 998 of 1000 cases."""

    low: float
    value: float
    high: float
    samples: int


def wilson(hits: int, samples: int, z: float = Z) -> Interval | None:
    """Wilson's score interval of the ratio of `hits`; None without samples.

    Raises:
        ValueError: more hits than samples.
    """
    if not 0 <= hits <= samples:
        raise ValueError(f"{hits} hits of {samples}")
    if samples == 0:
        return None
    ratio, square = hits / samples, z * z
    centre = (ratio + square / (2 * samples)) / (1 + square / samples)
    half = z / (1 + square / samples) * math.sqrt(ratio * (1 - ratio) / samples + square / (4 * samples * samples))
    return Interval(max(0.0, min(ratio, centre - half)), ratio, min(1.0, max(ratio, centre + half)), samples)


@dataclass(slots=True)
class Tally:
    """What one release did on one device in some time, added up."""

    labelled: int = 0
    correct: int = 0
    confusion: Counter[Pair] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of `body`."""
        confusion = {(truth, predicted): number for truth, predicted, number in body["confusion"]}
        latency = {int(place): number for place, number in body["latency"].items()}
        return cls(body["labelled"], body["correct"], Counter(confusion), Counter(latency))

    @property
    def body(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "labelled": self.labelled,
            "correct": self.correct,
            "confusion": [[*pair, number] for pair, number in self.confusion.items()],
            "latency": dict(self.latency),
        }

    def add(self, other: Self) -> None:
        """Take another one in."""
        self.labelled += other.labelled
        self.correct += other.correct
        self.confusion.update(other.confusion)
        self.latency.update(other.latency)

    @classmethod
    def of(
        cls, labelled: int, correct: int, confusion: Iterable[tuple[int, int, int]], latency: Mapping[str, int]
    ) -> Self:
        """What one window says, in the form in which it is stored."""
        pairs = Counter({(truth, predicted): number for truth, predicted, number in confusion})
        return cls(labelled, correct, pairs, Counter({int(place): number for place, number in latency.items()}))


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracy over all answers; precision and recall are means over the classes (macro). None: nothing to count."""

    accuracy: Interval | None
    precision: Interval | None
    recall: Interval | None


def scores(tally: Tally) -> Scores:
    """What the labelled answers of `tally` say. Classes that share the last place have no precision of their own."""
    said, true = Counter[int](), Counter[int]()
    hits = Counter[int]()
    for (truth, predicted), number in tally.confusion.items():
        said[predicted] += number
        true[truth] += number
        hits[truth] += number if truth == predicted else 0
    return Scores(wilson(min(tally.correct, tally.labelled), tally.labelled), _mean(hits, said), _mean(hits, true))


def _mean(hits: Mapping[int, int], totals: Mapping[int, int]) -> Interval | None:
    """Mean over classes; the half widths of independent intervals add up in squares (MOVER)."""
    every = [
        found
        for place, total in totals.items()
        if place < LAST_CLASS and (found := wilson(hits.get(place, 0), total)) is not None
    ]
    if not every:
        return None
    value = sum(one.value for one in every) / len(every)
    down = math.sqrt(sum((one.value - one.low) ** 2 for one in every)) / len(every)
    up = math.sqrt(sum((one.high - one.value) ** 2 for one in every)) / len(every)
    samples = sum(one.samples for one in every)
    return Interval(max(0.0, value - down), value, min(1.0, value + up), samples)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse is an alarm: as a difference of ratios, and as a share of the latency before."""

    accuracy: float
    precision: float
    recall: float
    latency: float
    degradation: float  # of accuracy at publish, and of the median latency before, as a share of it
    min_samples: int

    @classmethod
    def of(cls, settings: FleetSettings) -> Self:
        """Those of `thresholds.performance_drift`, and `monitoring.performance_degradation_threshold`."""
        chosen = settings.thresholds.performance_drift
        return cls(
            accuracy=chosen.accuracy_threshold,
            precision=chosen.precision_threshold,
            recall=chosen.recall_threshold,
            latency=chosen.latency_threshold,
            degradation=settings.monitoring.performance_degradation_threshold,
            min_samples=settings.drift_detection.min_samples_for_detection,
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """One figure that is worse than allowed, for certain: `least` is the lower bound of how much."""

    metric: str  # accuracy, precision, recall, latency, median latency
    reference: float
    value: float
    least: float
    limit: float
    samples: int

    @property
    def excess(self) -> float:
        """How many times the limit it is."""
        lost = self.value / self.reference - 1 if self.metric in _TIMES else self.reference - self.value
        return lost / self.limit

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.metric in _TIMES:
            return (
                f"{_TIMES[self.metric]} is {self.value:.1f} ms, it was {self.reference:.1f} ms on this device before "
                f"({self.samples} requests; more than {self.limit:.0%} slower for certain)"
            )
        return (
            f"{self.metric} is {self.value:.1%}, it was {self.reference:.1%} on the reference data "
            f"({self.samples} labelled answers; at least {100 * self.least:.1f} points lower)"
        )


def losses(limits: Limits, now: Tally, reference: Mapping[str, float], before: Latency) -> Iterator[Loss]:
    """Everything that got worse. `reference`: accuracy and the like at publish; `before`: the device's own past."""
    found = scores(now)
    for metric, limit in (
        ("accuracy", min(limits.accuracy, limits.degradation * reference.get("accuracy", 1.0))),
        ("precision", limits.precision),
        ("recall", limits.recall),
    ):
        interval: Interval | None = getattr(found, metric)
        was = reference.get(metric)
        if interval is None or was is None or interval.samples < limits.min_samples:
            continue
        if was - interval.high > limit:
            yield Loss(metric, was, interval.value, was - interval.high, limit, interval.samples)
    times = Latency(now.latency)
    slower = _slower("latency", limits.latency, TAIL, limits.min_samples, times, before) or _slower(
        "median latency", limits.degradation, HALF, limits.min_samples, times, before
    )
    if slower is not None:
        yield slower


def _slower(metric: str, limit: float, tail: float, least: int, now: Latency, before: Latency) -> Loss | None:
    """Whether more than `tail` of all requests take longer than so many did before, and the allowance on top."""
    was, is_now = before.quantile_ms(1 - tail), now.quantile_ms(1 - tail)
    if was is None or is_now is None or min(now.count, before.count) < least:
        return None
    edge = was * (1 + limit)
    above = sum(number for place, number in now.bins.items() if LATENCY_RATIO**place > edge)
    share = wilson(above, now.count)
    if share is None or share.low <= tail:
        return None
    return Loss(metric, was, is_now, limit, limit, now.count)
