"""Performance as people read it: one figure for each measure, with its interval, what it was before, and one sentence.

    tally of now, metrics at publish, the device's own past ──► figures ──► command line, dashboard, reports

Whoever measures something else adds a `Figure`; those who show figures take whatever there is.

I/O: none.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from fleet.telemetry.performance import TAIL, Interval, Limits, Tally, losses, scores, wilson
from shared.sketches import Latency

State = Literal["collecting", "unknown", "ok", "watch", "worse"]

#: measure -> what it is
MEANINGS: Final[Mapping[str, str]] = {
    "accuracy": "Accuracy is the share of answers with a known truth that were right.",
    "precision": "Precision says how often the model is right when it names a class, as a mean over the classes.",
    "recall": "Recall says how much of each class the model finds, as a mean over the classes.",
    "accuracy without labels": "The share of answers that are probably right, judged by their confidence alone.",
    "latency": "Nineteen of twenty requests are answered within the p95.",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure. Ratios are 0 to 1, latencies ms; `low` to `high` holds the truth in 998 of 1000 cases."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    reference: float | None  # at publish; of latencies, on the same devices before
    limit: float  # how much worse is an alarm
    samples: int
    needed: int
    state: State
    estimate: bool = False  # made without labels: shown, never an alarm

    def written(self, value: float | None) -> str:
        """`91.2 %`, `31.4 ms`, or the dash."""
        if value is None:
            return "–"
        return f"{value:.1f} ms" if self.metric == "latency" else f"{value:.1%}".replace("%", " %")

    @property
    def interval(self) -> str:
        """`89.9 to 92.3 %`, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.written(self.low).rpartition(' ')[0]} to {self.written(self.high)}"

    @property
    def text(self) -> str:
        """What it says here, in one sentence."""
        kind = "requests" if self.metric == "latency" else "answers" if self.estimate else "labelled answers"
        was = "on the same devices before" if self.metric == "latency" else "at publish"
        if self.estimate and self.reference is not None:
            return f"{self.samples} {kind}; {self.written(self.reference)} were right {was}. Confidence may mislead."
        if self.value is None:
            return f"insufficient data: no {kind} yet."
        if self.state == "collecting":
            return f"insufficient data: {self.samples} of {self.needed} {kind}."
        if self.reference is None:
            return f"{self.samples} {kind}; there is no figure {was} to compare with."
        before = f"it was {self.written(self.reference)} {was}"
        return {
            "ok": f"{before}: nothing to do.",
            "watch": f"{before}: a little worse, within what is allowed.",
            "worse": f"{before}: worse than allowed for certain, act.",
        }.get(self.state, before + ".")


@dataclass(frozen=True, slots=True)
class Standing:
    """How one release does in one scope now."""

    model: str
    version: str
    scope: str
    since: datetime
    as_of: datetime  # when the newest window came; in quiet serving windows grow to an hour
    figures: tuple[Figure, ...]


class Standings:
    """Where the figures of now are asked for. The driver of performance attaches itself; before that there are none."""

    def __init__(self) -> None:
        self._source: Callable[[str], Sequence[Standing]] | None = None

    def attach(self, source: Callable[[str], Sequence[Standing]]) -> None:
        """From now on `source` is asked."""
        self._source = source

    def of(self, model: str, version: str | None = None, scope: str | None = None) -> tuple[Standing, ...]:
        """Those of one model, the fleet first."""
        found = () if self._source is None else self._source(model)
        fitting = [one for one in found if version in (None, one.version) and scope in (None, one.scope)]
        return tuple(sorted(fitting, key=lambda one: (one.version, one.scope != "fleet", one.scope)))


def figures(limits: Limits, now: Tally, reference: Mapping[str, float], before: Latency) -> tuple[Figure, ...]:
    """Accuracy, precision, recall, latency; each also where nothing is known, so that its absence is told."""
    worse = {loss.metric for loss in losses(limits, now, reference, before)}
    return (*_ratios(limits, now, reference, worse), _latency(limits, now, before, worse))


def fleet_figures(
    limits: Limits, sides: Sequence[tuple[Tally, Mapping[int, int]]], reference: Mapping[str, float]
) -> tuple[Figure, ...]:
    """Of many devices, each with what it does now and how long it needed before.

    Latencies are compared over the devices that have a past, so that a new kind of device is no change.
    """
    total, past = Tally(), Counter[int]()
    for now, before in sides:
        total.labelled, total.correct = total.labelled + now.labelled, total.correct + now.correct
        total.confusion.update(now.confusion)
        past.update(before)
    for now, before in sides:
        if before or not past:
            total.latency.update(now.latency)
    return figures(limits, total, reference, Latency(past))


def _ratios(limits: Limits, now: Tally, reference: Mapping[str, float], worse: set[str]) -> Iterator[Figure]:
    found = scores(now)
    for metric, interval, limit in (
        ("accuracy", found.accuracy, limits.accuracy),
        ("precision", found.precision, limits.precision),
        ("recall", found.recall, limits.recall),
    ):
        was = reference.get(metric)
        state = _state(metric, limits, 0 if interval is None else interval.samples, was, worse)
        if state == "ok" and interval is not None and was is not None and interval.high < was:
            state = "watch"
        yield _figure(metric, interval, was, limit, limits.min_samples, state)


def _latency(limits: Limits, now: Tally, before: Latency, worse: set[str]) -> Figure:
    """The interval of a quantile: the quantiles at both ends of the interval of its share."""
    current, was = Latency(now.latency), before.quantile_ms(1 - TAIL)
    count, value = current.count, current.quantile_ms(1 - TAIL)
    share = wilson(round((1 - TAIL) * count), count)
    interval = None
    if share is not None and value is not None:
        low, high = current.quantile_ms(share.low), current.quantile_ms(share.high)
        interval = Interval(value if low is None else low, value, value if high is None else high, count)
    enough = was is not None and before.count >= limits.min_samples
    state = _state("latency", limits, count, was if enough else None, worse)
    if state == "ok" and interval is not None and was is not None and interval.low > was:
        state = "watch"
    return _figure("latency", interval, was if enough else None, limits.latency, limits.min_samples, state)


def _state(metric: str, limits: Limits, samples: int, was: float | None, worse: set[str]) -> State:
    if samples < limits.min_samples:
        return "collecting"
    if was is None:
        return "unknown"
    return "worse" if metric in worse else "ok"


def _figure(
    metric: str, interval: Interval | None, was: float | None, limit: float, needed: int, state: State
) -> Figure:
    return Figure(
        metric=metric,
        value=None if interval is None else interval.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        reference=was,
        limit=limit,
        samples=0 if interval is None else interval.samples,
        needed=needed,
        state=state,
    )


def estimated(said: Mapping[str, Any], limits: Limits) -> Figure:
    """The estimate of accuracy that the driver of drift stored (its JSON form), as a figure: shown, never an alarm."""
    value, error, was = float(said["accuracy"]), float(said["error"]), float(said["reference_accuracy"])
    return Figure(
        metric="accuracy without labels",
        value=value,
        low=max(0.0, value - error),
        high=min(1.0, value + error),
        reference=was,
        limit=limits.accuracy,
        samples=int(said["samples"]),
        needed=limits.min_samples,
        state="watch" if value + error < was - limits.accuracy else "ok",
        estimate=True,
    )


def document(standing: Standing) -> dict[str, object]:
    """The JSON form."""
    return {
        "scope": standing.scope,
        "version": standing.version,
        "since": standing.since.isoformat(),
        "as_of": standing.as_of.isoformat(),
        "figures": [figure_document(one) for one in standing.figures],
    }


def figure_document(one: Figure) -> dict[str, object]:
    """The JSON form of one figure."""
    return {
        "metric": one.metric,
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "reference": one.reference,
        "limit": one.limit,
        "samples": one.samples,
        "needed": one.needed,
        "state": one.state,
        "estimate": one.estimate,
        "text": one.text,
    }
