"""Arrays of one look to findings: the statistics of the detection window, and the alarm of the window that rings.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.telemetry import calibrated, drift
from fleet.telemetry.calibrated import TESTS, WINDOWS, Judgement
from fleet.telemetry.dispersion import Dispersion
from fleet.telemetry.finding import Finding, Ringing, level
from fleet.telemetry.layout import Layout
from fleet.telemetry.vectors import HOURS_A_DAY

Vector = NDArray[np.int64]
Floats = NDArray[np.float64]
_PRESENCE: Final = np.array([2])  # bins of a table of what is there and what is missing


@dataclass(frozen=True, slots=True)
class Needs:
    """What a look is told by the settings."""

    min_samples: int
    significance: float
    limits: Mapping[str, float]  # level -> p that raises an alarm; a level without one raises none


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of some scopes of one release, one row each."""

    model: str
    version: str
    scopes: Sequence[str]
    layout: Layout
    windows: NDArray[np.int64]  # [rows, WINDOWS, vector]
    recent: NDArray[np.int64]  # [rows, vector]: the detection window
    reference: NDArray[np.int64]  # [rows, vector]
    spread: Dispersion
    usable: NDArray[np.bool_]  # [rows, WINDOWS, features]


def judge(looked: Looked, needs: Needs) -> Judgement:
    """The p of every row and feature."""
    return calibrated.judge(
        looked.windows,
        looked.reference,
        looked.layout,
        looked.spread,
        usable=looked.usable,
        min_samples=needs.min_samples,
    )


def rings(looked: Looked, feature: str, needs: Needs) -> bool:
    """True when the first of its scopes raises an alarm about `feature`: unlikely by chance, and large enough."""
    judged, at = judge(looked, needs), looked.layout.names.index(feature)
    limit = needs.limits.get(level(looked.scopes[0]), 0.0)
    return bool(judged.p[0, at] <= limit) and _ringing(looked, judged, (0, at), limit, needs) is not None


def findings(looked: Looked, needs: Needs) -> list[Finding]:
    """One for each row and feature of which anything came in the detection window."""
    layout, judged = looked.layout, judge(looked, needs)
    counts, expected = layout.bins.sums(looked.recent), layout.bins.sums(looked.reference)
    missing = layout.tails.sums(looked.recent)[..., -1]
    rows, features = np.nonzero(counts.sum(axis=2) + missing > 0)
    table = _statistics(counts[rows, features], expected[rows, features], features, layout, needs)
    more = _more(looked, table, rows, features)
    here, there = (values[rows, features].astype(np.int64).tolist() for values in (counts, expected))
    limits = np.array([needs.limits.get(level(scope), 0.0) for scope in looked.scopes])
    rings = judged.p <= limits[:, None]
    return [
        Finding(
            scope=looked.scopes[row],
            model=looked.model,
            version=looked.version,
            feature=layout.names[at],
            samples=table[place].samples,
            missing=int(missing[row, at]),
            statistics=table[place],
            reference=layout.references[layout.names[at]],
            counts=tuple(here[place][: layout.numbers[at]]),
            expected=tuple(there[place][: layout.numbers[at]]),
            alarm=_ringing(looked, judged, (row, at), float(limits[row]), needs) if rings[row, at] else None,
            **more[place],
        )
        for place, (row, at) in enumerate(zip(rows.tolist(), features.tolist(), strict=True))
    ]


def _more(
    looked: Looked, table: Sequence[drift.Statistics], rows: NDArray[np.intp], features: NDArray[np.intp]
) -> list[dict[str, Any]]:
    """What takes dispersion into account: p, whether it matters, the smallest PSI that can be told."""
    layout, spread = looked.layout, looked.spread
    against = calibrated.Reference.of(looked.reference, layout)
    now = calibrated.window(looked.recent, against, layout, spread, hours=HOURS_A_DAY)
    heavy = spread.mean(layout.numbers)[rows, features]
    lower = _bounds(table, heavy, layout.numbers[features])
    columns = (
        np.minimum(1.0, now.p * len(TESTS))[rows, features],
        calibrated.matters(lower, now.shift[rows, features], now.excess[rows, features]),
        *(values[rows, features] for values in (spread.first, spread.second, spread.residual)),
        heavy,
    )
    return [
        {"p": p, "matters": matters, "dispersion": (first, second, g), "psi_limit": known.psi_limit * phi}
        for known, p, matters, first, second, g, phi in zip(table, *(it.tolist() for it in columns), strict=True)
    ]


def _ringing(looked: Looked, judged: Judgement, place: tuple[int, int], limit: float, needs: Needs) -> Ringing | None:
    """The alarm of one row and feature, if the change is large enough to matter."""
    test, heavy = TESTS[judged.test[place]], float(looked.spread.mean(looked.layout.numbers)[place])
    known, bins = _in_window(looked, place, judged.window[place], test, needs)
    s = 1 / max(known.samples, 1) + 1 / known.reference_samples
    lower = float(_bounds((known,), np.array([heavy]), bins)[0])
    if not calibrated.matters(np.array(lower), judged.shift[place], judged.excess[place]):
        return None
    return Ringing(
        p=float(judged.p[place]),
        limit=limit,
        hours=WINDOWS[judged.window[place]],
        test=test,
        samples=known.samples,
        psi=float(known.psi - (bins[0] - 1) * s * heavy),
        psi_lower=lower,
        psi_limit=float(known.psi_limit * heavy),
        shift=float(judged.shift[place]),
    )


def _in_window(
    looked: Looked, place: tuple[int, int], window: int, test: str, needs: Needs
) -> tuple[drift.Statistics, NDArray[np.int64]]:
    """Statistics of the window that rings and their number of bins; of there and missing, if it rings for that."""
    layout, (row, at) = looked.layout, place
    sides = (looked.windows[row, window][None], looked.reference[row][None])
    counts, expected = (layout.bins.sums(side)[:, at] for side in sides)
    if test != "missing":
        (known,) = _statistics(counts, expected, np.array([at]), layout, needs)
        return known, layout.numbers[at : at + 1]
    absent = [layout.tails.sums(side)[:, at, -1] for side in sides]
    here, there = (
        np.stack([counts.sum(axis=1), absent[0]], axis=1),
        np.stack([expected.sum(axis=1), absent[1]], axis=1),
    )
    (known,) = drift.table(here, there, np.ones((1, 2)), _PRESENCE, needs.significance)
    return known, _PRESENCE


def _statistics(
    counts: Floats, expected: Floats, features: NDArray[np.intp], layout: Layout, needs: Needs
) -> tuple[drift.Statistics, ...]:
    """Of every row; where all values are missing there is no distance, and no sample."""
    if not len(features):
        return ()
    nothing = counts.sum(axis=1) == 0
    found = drift.table(
        np.where(nothing[:, None], expected, counts),
        expected,
        layout.widths[features],
        layout.numbers[features],
        needs.significance,
    )
    return tuple(replace(it, samples=0) if empty else it for it, empty in zip(found, nothing.tolist(), strict=True))


def _bounds(known: Sequence[drift.Statistics], heavy: Floats, bins: NDArray[np.int64]) -> Floats:
    """Lower bounds of PSI, dispersion included."""
    s = np.array([1 / max(it.samples, 1) + 1 / it.reference_samples for it in known]) * heavy
    return drift.lower_bound(np.array([it.psi for it in known]) - (bins - 1) * s, bins, s)
