"""The alarm that can be believed: one p for each row and feature, held against a budget of false alarms a day.

Every window of 1, 2, 4 ... 128 hours that ends now is compared with the reference by five tests: moved or spread
(V1, V2), another shape (the residual; of classes, which have no order, the whole chi-square), too many below, above,
missing. The smallest p of all of them, times their number, is the p of the row. Dispersion of ordinary days is taken
out first.

    alarm   p <= budget of the level / (looks a day x rows of the level), and the change is large enough to matter
    graded  by PSI less what chance and dispersion add to it, never with too few samples

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fleet.telemetry import components
from fleet.telemetry.dispersion import Dispersion
from fleet.telemetry.layout import TAILS, Layout

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Hours of the windows that end now.
WINDOWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
#: The shape is tested from so many hours and samples on: chi-square is no chi-square with less.
SHAPE_HOURS: Final = 8
SHAPE_SAMPLES: Final = 20
#: Dispersion of the shape is learned from days: where there is much of it, windows far shorter than a day are left out.
SHAPE_DISPERSION: Final = 2.0
SHAPE_HOURS_DISPERSED: Final = 16
TESTS: Final = ("moved", "shape", *TAILS)
#: Looks a day that the budget is spread over: one an hour, and some within the hour.
LOOKS: Final = 48
#: Changes below all of these are not worth an alarm, however certain.
EFFECT_PSI: Final = 0.01  # lower bound
EFFECT_SHIFT: Final = 0.04  # standard deviations of the ranks
EFFECT_TAIL: Final = 0.005  # of all samples


@dataclass(frozen=True, slots=True)
class Judgement:
    """[rows, features] each."""

    p: Floats  # of the whole look, corrected for all windows and tests
    window: NDArray[np.int64]  # index into WINDOWS of the smallest p
    test: NDArray[np.int64]  # index into TESTS
    shift: Floats  # V1 / sqrt(e) of that window
    excess: Floats  # the largest share of a tail in that window that the reference does not explain
    samples: Floats  # in that window, missing ones too


def judge(
    windows: NDArray[np.int64],
    reference: NDArray[np.int64],
    layout: Layout,
    spread: Dispersion,
    *,
    usable: Bools,
    min_samples: int,
) -> Judgement:
    """`windows` [rows, WINDOWS, vector], `reference` [rows or 1, vector], `usable` [rows, WINDOWS, features]."""
    rows, features = len(windows), len(layout.names)
    best = np.ones((rows, features))
    found = Judgement(
        p=best,
        window=np.zeros((rows, features), dtype=np.int64),
        test=np.zeros((rows, features), dtype=np.int64),
        shift=np.zeros((rows, features)),
        excess=np.zeros((rows, features)),
        samples=np.zeros((rows, features)),
    )
    against = Reference.of(reference, layout)
    for index, hours in enumerate(WINDOWS):
        one = window(windows[:, index], against, layout, spread, hours=hours)
        p = np.where(usable[:, index] & (one.samples >= min_samples), one.p, 1.0)
        better = p < best
        for kept, new in ((best, p), (found.shift, one.shift), (found.excess, one.excess)):
            kept[better] = new[better]
        found.samples[better], found.test[better] = one.samples[better], one.test[better]
        found.window[better] = index
    np.minimum(best * len(TESTS) * len(WINDOWS), 1.0, out=best)
    return found


@dataclass(frozen=True, slots=True)
class Reference:
    """Counts of the reference in cells, tails and all; [rows or 1, features, ...]."""

    cells: Floats
    tails: Floats
    total: Floats

    @classmethod
    def of(cls, vectors: NDArray[np.int64], layout: Layout) -> "Reference":
        """Of vectors [rows or 1, places]."""
        return cls(layout.cells.sums(vectors), layout.tails.sums(vectors), layout.bins.sums(vectors).sum(axis=2))


def window(
    vectors: NDArray[np.int64], against: Reference, layout: Layout, spread: Dispersion, *, hours: int
) -> Judgement:
    """One window of `hours` of every row; p is the smallest of all tests and not corrected for their number."""
    cells = layout.cells.sums(vectors)
    shape = cells.shape
    reference = np.broadcast_to(against.cells, shape)
    parts = components.split(cells.reshape(-1, shape[2]), reference.reshape(-1, shape[2]))
    v1, v2, n = (values.reshape(shape[:2]) for values in (parts.v1, parts.v2, parts.samples))
    both = v1**2 / spread.first + v2**2 / spread.second
    moved = special.chdtrc(2.0, both)
    moved = np.where(parts.dof.reshape(shape[:2]) > 0, moved, 1.0)
    residual, nominal = parts.residual.reshape(shape[:2]), parts.dof.reshape(shape[:2]) - 2
    freedom = np.where(spread.freedom > 0, spread.freedom, nominal)
    tested = (nominal > 0) & (freedom > 0) & (n >= SHAPE_SAMPLES) & (hours >= SHAPE_HOURS)
    tested &= (spread.residual < SHAPE_DISPERSION) | (hours >= SHAPE_HOURS_DISPERSED)
    unordered = 1.0 - layout.ordered  # the order of classes means nothing: all of their chi-square is shape
    shape_chi2 = residual / spread.residual + unordered * both
    other = np.where(tested, special.chdtrc(np.maximum(freedom, 0.5) + 2 * unordered, shape_chi2), 1.0)
    tails, excess = _tails(vectors, n, against, layout, spread)
    every = np.concatenate([moved[..., None], other[..., None], tails], axis=2)
    effective = parts.effective.reshape(shape[:2])
    return Judgement(
        p=every.min(axis=2),
        window=np.zeros(shape[:2], dtype=np.int64),
        test=every.argmin(axis=2),
        shift=np.divide(v1, np.sqrt(effective), out=np.zeros_like(v1), where=effective > 0),
        excess=excess,
        samples=n + layout.tails.sums(vectors)[..., -1],
    )


def _tails(
    vectors: NDArray[np.int64], n: Floats, against: Reference, layout: Layout, spread: Dispersion
) -> tuple[Floats, Floats]:
    counts = layout.tails.sums(vectors)
    expected = np.broadcast_to(against.tails, counts.shape)
    totals, others = np.repeat(n[..., None], 3, axis=2), np.repeat(against.total[..., None], 3, axis=2)
    totals[..., 2] += counts[..., 2]  # what is missing lies in no bin
    others[..., 2] += against.tails[..., 2]
    others = np.broadcast_to(others, counts.shape)
    p = components.tail(counts, expected, totals, others, spread.tails)
    more = counts / np.maximum(totals, 1) - expected / np.maximum(others, 1)
    return np.where(others > 0, p, 1.0), np.asarray(more.max(axis=2))


def limit(false_alarms_per_day: float, levels: int, rows: int) -> float:
    """The p that raises an alarm: the level's part of the budget, spread over its rows and a day's looks."""
    return false_alarms_per_day / max(levels, 1) / (LOOKS * max(rows, 1))


def matters(lower: Floats, shift: Floats, excess: Floats) -> Bools:
    """True where a change is large enough for an alarm."""
    return np.asarray((lower >= EFFECT_PSI) | (np.abs(shift) >= EFFECT_SHIFT) | (excess >= EFFECT_TAIL))
