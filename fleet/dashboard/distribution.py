"""One feature, reference against live, as bars. Counts come from the sketches; nothing is smoothed.

I/O: none.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet.dashboard import drawing, facts

WIDTH: Final = 520.0
HEIGHT: Final = 150.0
_STUB: Final = 14.0  # width of an overflow bar, which has no width of its own
_SPIKY: Final = 25.0  # densities further apart than this cannot share one scale

_TINY: Final = 0.0005  # below it three digits would say zero

Bar = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawing of 520 x 176: bars (x, y, width, height), ticks (x, text), and the numbers below it."""

    feature: str
    features: tuple[str, ...]
    reference: tuple[Bar, ...]
    live: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    tone: str
    verdict: str
    numbers: str
    scale: str
    scope: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over the same fixed bins: bin i lies between edge i-1 and edge i."""

    edges: tuple[float, ...]
    reference: tuple[int, ...]
    live: tuple[int, ...]
    category: bool


def draw(drift: Sequence[facts.Drift], chosen: str | None, limits: facts.Limits) -> Drawn | None:
    """The chosen feature, or the one that moved most; None when nothing was compared yet."""
    known = [one for one in drift if histogram(one.body) is not None]
    together = [one for one in known if one.scope == "fleet"] or known
    by_feature = {one.feature: one for one in sorted(together, key=_moved)}
    if not by_feature:
        return None
    picked = by_feature.get(chosen or "") or max(by_feature.values(), key=_moved)
    found = histogram(picked.body)
    return None if found is None else _drawn(picked, found, tuple(sorted(by_feature)), limits)


def _moved(one: facts.Drift) -> float:
    return -1.0 if one.psi is None else one.psi


def histogram(body: Mapping[str, Any]) -> Histogram | None:
    """The two histograms in a row of `drift`; None where they are missing or do not fit each other."""
    edges, reference, live = (body.get(name) or () for name in ("edges", "reference", "counts"))
    if not edges or not len(edges) + 1 == len(reference) == len(live):
        return None
    return Histogram(tuple(edges), tuple(reference), tuple(live), body.get("kind") == "category")


def _drawn(one: facts.Drift, found: Histogram, features: tuple[str, ...], limits: facts.Limits) -> Drawn:
    left, right, ticks, scale = shape(found)
    collecting = one.psi is None or one.state == "collecting"
    return Drawn(
        feature=one.feature,
        features=features,
        reference=left,
        live=right,
        ticks=ticks,
        tone={"drifted": "crit", "warning": "warn", "ok": "ok"}.get(one.state, "info"),
        verdict=f"collecting: {one.samples} samples so far"
        if collecting
        else f"PSI {max(0.0, one.psi or 0.0):.2f}, limit {limits.psi:.2f}",
        numbers=_numbers(one, sum(found.reference)),
        scale=scale,
        scope="all devices" if one.scope == "fleet" else one.scope.removeprefix("device:"),
    )


def _numbers(one: facts.Drift, reference: int) -> str:
    named = (("KS", "ks"), ("JSD", "jsd"), ("KL", "kl"), ("p", "p"))
    words = []
    for word, key in named:
        value = one.body.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            words.append(f"{word} {'= ' if word == 'p' and value >= _TINY else ''}{_short(float(value))}")
    counted = f"{drawing.figure(one.samples, 0)} samples vs. {drawing.figure(reference, 0)} reference"
    return ", ".join((*words, counted))


def _short(value: float) -> str:
    return "< 0.001" if 0 <= value < _TINY else f"{value:.3f}"


Shape = tuple[tuple[Bar, ...], tuple[Bar, ...], tuple[tuple[float, str], ...], str]


def shape(found: Histogram) -> Shape:
    """Bars of reference and live counts, ticks (x, text), and what the height means."""
    edges = found.edges
    if found.category:
        step = WIDTH / len(found.live)
        ticks = tuple((round((index + 0.5) * step, 1), str(index)) for index in range(len(found.live)))
        return (*_even(found), ticks, "share of each class")
    spans = [after - before for before, after in itertools.pairwise(edges)]
    densities = [number / width for number, width in zip(found.reference[1:-1], spans, strict=True) if width > 0]
    typical = statistics.median(densities) if densities else 0.0
    if len(spans) >= 3 and 0 < max(densities, default=0.0) <= _SPIKY * typical:
        return _by_value(found)
    step = WIDTH / len(found.live)
    places = range(0, len(edges), max(1, len(edges) // 6))
    ticks = tuple((round((index + 1) * step, 1), f"{edges[index]:.3g}") for index in places)
    return (*_even(found), ticks, "share of each bin of the reference")


def _even(found: Histogram) -> tuple[tuple[Bar, ...], tuple[Bar, ...]]:
    top = max(_top(found.reference), _top(found.live))
    return (
        drawing.columns(found.reference, WIDTH, HEIGHT, top),
        drawing.columns(found.live, WIDTH, HEIGHT, top),
    )


def _top(counts: Sequence[int]) -> float:
    return max(counts) / (sum(counts) or 1)


def _by_value(found: Histogram) -> Shape:
    """Bars as wide as their bins, so that areas are shares; overflow as stubs at both ends."""
    edges, inner = found.edges, WIDTH - 2 * _STUB
    reach = edges[-1] - edges[0]
    places = [0.0, *(_STUB + inner * (edge - edges[0]) / reach for edge in edges), WIDTH]
    heights = [_heights(counts, places) for counts in (found.reference, found.live)]
    top = max(*heights[0], *heights[1][1:-1]) or 1.0
    ticks = tuple((round(_STUB + inner * part / 4, 1), f"{edges[0] + reach * part / 4:.3g}") for part in range(5))
    scale = "share per unit; the ends hold what lies beyond the reference"
    return _bars(heights[0], places, top), _bars(heights[1], places, top), ticks, scale


def _bars(heights: Sequence[float], places: Sequence[float], top: float) -> tuple[Bar, ...]:
    bars = []
    for (left, right), height in zip(itertools.pairwise(places), heights, strict=True):
        shown = round(min(HEIGHT, HEIGHT * height / top), 2)
        bars.append((round(left + 0.4, 2), round(HEIGHT - shown, 2), round(max(0.6, right - left - 0.8), 2), shown))
    return tuple(bars)


def _heights(counts: Sequence[int], places: Sequence[float]) -> list[float]:
    total = sum(counts) or 1
    return [
        number / total / max(right - left, 0.5)
        for number, (left, right) in zip(counts, itertools.pairwise(places), strict=True)
    ]
