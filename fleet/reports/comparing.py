"""Sums of counts to sizes of change, for every row, column and feature at once.

A device's sums come in blocks of devices, are judged, and are kept only as part of the sums of their site and of all.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.alerts.states import Severity
from fleet.reports.content import CELLS, Cell
from fleet.telemetry import drift
from fleet.telemetry.layout import Layout
from fleet.telemetry.verdict import Rule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Severity -> its place in CELLS.
_GRADED: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class Compared:
    """One scope. `psi` and `limit` are NaN where nothing came; [columns, features], and [features] over all columns."""

    counts: Ints  # [columns, places]
    reference: Ints  # [places]
    psi: Floats
    limit: Floats
    cells: NDArray[np.int8]  # places in CELLS
    samples: Ints
    total_psi: Floats
    total_limit: Floats
    total_cells: NDArray[np.int8]
    total_samples: Ints

    def column_cells(self) -> tuple[Cell, ...]:
        """Of each column, the cell of its worst feature."""
        return tuple(CELLS[place] for place in self.cells.max(axis=1, initial=0).tolist())

    def worst(self) -> int | None:
        """The feature that moved most of those that can be told; None when none came."""
        known = np.where(self.total_cells >= CELLS.index("ok"), self.total_psi, -np.inf)
        if not np.isfinite(known).any():
            return None
        return int(known.argmax())


@dataclass(frozen=True, slots=True)
class Device:
    """What is kept of one device."""

    name: str
    site: str
    cells: tuple[Cell, ...]
    samples: int  # of the feature with most
    columns: int  # in which anything came
    worst: str
    psi: float | None
    rank: tuple[int, float]  # for order: the gravest cell, the largest PSI


def compare(counts: Ints, reference: Ints, heavy: Floats, layout: Layout, rule: Rule) -> list[Compared]:
    """Every row of counts [rows, columns, places] with its reference [rows, places]; heavy [rows, features]."""
    rows, columns, places = counts.shape
    parts = _judged(
        counts.reshape(-1, places),
        np.repeat(reference, columns, axis=0),
        np.repeat(heavy, columns, axis=0),
        layout,
        rule,
    )
    psi, limit, cells, samples = (values.reshape(rows, columns, -1) for values in parts)
    total = _judged(counts.sum(axis=1), reference, heavy, layout, rule)
    return [
        Compared(
            counts=counts[row],
            reference=reference[row],
            psi=psi[row],
            limit=limit[row],
            cells=cells[row],
            samples=samples[row],
            total_psi=total[0][row],
            total_limit=total[1][row],
            total_cells=total[2][row],
            total_samples=total[3][row],
        )
        for row in range(rows)
    ]


def _judged(
    counts: Ints, reference: Ints, heavy: Floats, layout: Layout, rule: Rule
) -> tuple[Floats, Floats, NDArray[np.int8], Ints]:
    """[rows, features]: corrected PSI, what chance and ordinary days explain, cell, samples."""
    here, there = layout.bins.sums(counts), layout.bins.sums(reference)
    samples, expected = here.sum(axis=2), there.sum(axis=2)
    rows, features = np.nonzero((samples > 0) & (expected > 0))
    psi, limit = np.full(samples.shape, np.nan), np.full(samples.shape, np.nan)
    if len(rows):
        psi[rows, features], chance = drift.sizes(
            here[rows, features], there[rows, features], layout.numbers[features], rule.significance
        )
        limit[rows, features] = chance * heavy[rows, features]
    return psi, limit, _cells(psi, limit, samples, rule), samples.astype(np.int64)


def _cells(psi: Floats, limit: Floats, samples: Floats, rule: Rule) -> NDArray[np.int8]:
    """Graded only beyond what chance explains; none at all where even a critical change could hide."""
    known = np.isfinite(psi)
    size, bound = np.where(known, psi, 0.0), np.where(known, limit, 0.0)
    cells = np.full(psi.shape, CELLS.index("ok"), dtype=np.int8)
    for name in _GRADED:
        cells[(size >= rule.cuts[name]) & (size >= bound)] = CELLS.index(name)
    few = (samples < rule.min_samples) | (bound > rule.cuts["critical"])
    cells[few] = CELLS.index("few")
    cells[samples == 0] = CELLS.index("none")
    return cells


def device(name: str, site: str, found: Compared, layout: Layout) -> Device:
    """What the strip and the coverage need of one device."""
    worst = found.worst()
    psi = None if worst is None else float(found.total_psi[worst])
    gravest = int(max(found.cells.max(initial=0), found.total_cells.max(initial=0)))
    return Device(
        name=name,
        site=site,
        cells=found.column_cells(),
        samples=int(found.total_samples.max(initial=0)),
        columns=int((found.samples.max(axis=1, initial=0) > 0).sum()),
        worst="" if worst is None else layout.names[worst],
        psi=psi,
        rank=(gravest, -1.0 if psi is None else psi),
    )


def heaviness(layout: Layout, known: Sequence[tuple[str, float, int, int]], significance: float) -> Floats:
    """[features]: by how much ordinary days make PSI larger, from (feature, psi_limit, samples, reference samples)."""
    found = np.ones(len(layout.names))
    for name, limit, samples, expected in known:
        if name in layout.names and samples > 0 and expected > 0:
            at = layout.names.index(name)
            ones = np.ones((1, int(layout.numbers[at])))
            here, there = ones * samples / layout.numbers[at], ones * expected / layout.numbers[at]
            _, chance = drift.sizes(here, there, layout.numbers[at : at + 1], significance)
            found[at] = max(1.0, limit / float(chance[0])) if chance[0] > 0 else 1.0
    return found


def statistics(found: Compared, layout: Layout, rule: Rule) -> dict[str, drift.Statistics]:
    """Feature -> all distances over the whole time; features without samples are left out."""
    here = layout.bins.sums(found.counts.sum(axis=0)[None])[0]
    there = layout.bins.sums(found.reference[None])[0]
    some = [at for at in range(len(layout.names)) if here[at].sum() > 0 and there[at].sum() > 0]
    if not some:
        return {}
    table = drift.table(here[some], there[some], layout.widths[some], layout.numbers[some], rule.significance)
    return {layout.names[at]: one for at, one in zip(some, table, strict=True)}
