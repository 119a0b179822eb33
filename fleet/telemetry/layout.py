"""How the counts of all features of a release lie in one flat vector, and which bins are tested together.

    vector   bins of feature 1, missing of feature 1, bins of feature 2, ...      (one vector per device and hour)
    cells    bins that hold too little of the reference are joined: chi-square needs some samples in each
    tails    what should be rare: below the first edge, above the last one (or classes never seen), missing

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.telemetry.baselines import Reference, fits
from shared.messages import FeatureCounts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Least share of the reference in a cell.
CELL_SHARE: Final = 0.03
#: A class with less of the reference than this is as good as unseen.
UNSEEN_SHARE: Final = 0.001
#: Of one bin in one telemetry window. More is no count, and would not fit the sums of an hour.
MAX_COUNT: Final = 2**24
TAILS: Final = ("low", "high", "missing")


@dataclass(frozen=True, slots=True)
class Pool:
    """Sums over groups of places of a vector: `order` lists the places, `starts` where each group begins."""

    order: Ints
    starts: Ints
    shape: tuple[int, int]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Sequence[int]]], nowhere: int) -> "Pool":
        """`groups[feature][cell]` are places; rows are filled up with `nowhere`, a place that holds nothing."""
        width = max((len(row) for row in groups), default=0)
        filled = [cell or [nowhere] for row in groups for cell in [*row, *([[nowhere]] * (width - len(row)))]]
        lengths = [len(cell) for cell in filled]
        order = np.array([place for cell in filled for place in cell], dtype=np.int64)
        return cls(order, np.cumsum([0, *lengths[:-1]]), (len(groups), width))

    def sums(self, vectors: NDArray[np.generic]) -> Floats:
        """[rows, places] -> [rows, features, groups]. The place behind the last one holds nothing."""
        filled = np.concatenate([vectors, np.zeros((len(vectors), 1), vectors.dtype)], axis=1)
        found = np.add.reduceat(filled[:, self.order], self.starts, axis=1)
        return found.astype(np.float64).reshape(len(vectors), *self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The vector of one release. Features are in the order of its baseline."""

    references: Mapping[str, Reference]
    names: tuple[str, ...]
    places: Mapping[str, slice]  # of the bins; the place behind them counts what is missing
    size: int
    vector: Ints  # of the reference
    bins: Pool
    cells: Pool
    tails: Pool
    widths: Floats  # [features, bins], in standard deviations of the reference
    numbers: Ints  # bins of each feature
    ordered: Floats  # 1 for quantities, 0 for classes

    @classmethod
    def of(cls, references: Mapping[str, Reference]) -> "Layout":
        """The layout for these features."""
        places, size = dict[str, slice](), 0
        for name, reference in references.items():
            places[name] = slice(size, size + len(reference.counts))
            size += len(reference.counts) + 1
        vector = np.zeros(size, dtype=np.int64)
        for name, reference in references.items():
            vector[places[name]] = reference.counts
            vector[places[name].stop] = reference.missing
        bins = Pool.of([[[place] for place in _range(place)] for place in places.values()], size)
        widths = np.zeros(bins.shape)
        for row, reference in enumerate(references.values()):
            widths[row, : len(reference.widths)] = reference.widths
        return cls(
            references=references,
            names=tuple(references),
            places=places,
            size=size,
            vector=vector,
            bins=bins,
            cells=Pool.of([_cells(references[name], place) for name, place in places.items()], size),
            tails=Pool.of([_tails(references[name], place) for name, place in places.items()], size),
            widths=widths,
            numbers=np.array([len(reference.counts) for reference in references.values()], dtype=np.int64),
            ordered=np.array([reference.kind != "category" for reference in references.values()], dtype=np.float64),
        )

    def flat(self, features: Mapping[str, FeatureCounts]) -> tuple[Ints, int]:
        """The vector of one telemetry window, and how many features were left out: over other bins, or absurd."""
        found, refused = np.zeros(self.size, dtype=np.int64), 0
        for name, counts in features.items():
            reference = self.references.get(name)
            if reference is None or not fits(reference, counts) or max(*counts.counts, counts.missing) > MAX_COUNT:
                refused += 1
                continue
            place = self.places[name]
            found[place] = counts.counts
            found[place.stop] = counts.missing
        return found, refused


def _range(place: slice) -> range:
    return range(place.start, place.stop)


def _cells(reference: Reference, place: slice) -> list[list[int]]:
    """Neighbours joined until each cell holds enough; of classes, which have no neighbours, all rare ones."""
    least = CELL_SHARE * sum(reference.counts)
    rare = [at for at, held in zip(_range(place), reference.counts, strict=True) if held < least]
    if reference.kind == "category":
        cells = [[at] for at in _range(place) if at not in set(rare)]
        return [*cells, rare] if rare else cells
    cells, held = [[]], 0
    for at, number in zip(_range(place), reference.counts, strict=True):
        if held >= least:
            cells, held = [*cells, []], 0
        cells[-1].append(at)
        held += number
    if held < least and len(cells) > 1:
        cells = [*cells[:-2], cells[-2] + cells[-1]]
    return cells


def _tails(reference: Reference, place: slice) -> list[list[int]]:
    if reference.kind == "category":
        least = UNSEEN_SHARE * sum(reference.counts)
        unseen = [at for at, held in zip(_range(place), reference.counts, strict=True) if held < least]
        return [[], unseen, [place.stop]]
    return [[place.start], [place.stop - 1], [place.stop]]
