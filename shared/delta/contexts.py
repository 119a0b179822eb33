"""How large an error is to be expected where. Elements of one context are coded together, so each block is uniform.

The context of a float: the size of the error of its row and column against the distance of neighbouring floats, in
half octaves. Of whole steps: row and column alone. Of an integer: row and column, and where between two integers the
prediction fell.

I/O: none.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from shared.delta import numbers
from shared.delta.layout import Method, Op, Use
from shared.delta.numbers import Array
from shared.delta.prediction import Side

CONTEXTS: Final = 256
COLUMN_ZERO: Final = 12  # the class of a column like all others
_POSITIONS: Final = 8


def contexts(pattern: Array, exact: Array | None, op: Op, side: Side, first: int, columns: int) -> Array | None:
    """The context of each element of a tile, uint8; None when all have the same."""
    classes = _classes(op, side, first, columns, len(pattern))
    if op.kind in numbers.FLOATS and op.method is not Method.GRID:
        found = (2 * (op.pivot - numbers.exponents(pattern, op.kind).astype(np.int16))).astype(np.int16)
        if classes is not None:
            found += classes
        np.clip(found, 1, CONTEXTS - 1, out=found)
        return _unless_quiet(found, op, side, first, columns).astype(np.uint8)
    if exact is None:
        return (
            None
            if classes is None
            else _unless_quiet(np.clip(classes, 1, 255), op, side, first, columns).astype(np.uint8)
        )
    place = np.nan_to_num(np.floor((exact - np.rint(exact) + 0.5) * _POSITIONS))
    found = np.clip(place, 0, _POSITIONS - 1).astype(np.int16)
    if classes is not None:
        found += np.clip(classes, 1, CONTEXTS // _POSITIONS - 1) * np.int16(_POSITIONS)
    return _unless_quiet(found, op, side, first, columns).astype(np.uint8)


def _classes(op: Op, side: Side, first: int, columns: int, count: int) -> Array | None:
    """Class of the row and of the column together."""
    found: Array | None = None
    if op.use & Use.ROW_CLASS:
        found = np.repeat(_rows(op, side, first, columns, count).astype(np.int16), columns if op.rows > 1 else count)
    if op.use & Use.COLUMN_CLASS:
        across = side.column_class.astype(np.int16) - COLUMN_ZERO
        wide = np.tile(across, count // columns) if op.rows > 1 else across[first : first + count]
        found = wide if found is None else found + wide
    return found


def _rows(op: Op, side: Side, first: int, columns: int, count: int) -> Array:
    if op.rows == 1:
        return side.row_class[:1]
    return side.row_class[first // columns : (first + count) // columns]


def _unless_quiet(found: Array, op: Op, side: Side, first: int, columns: int) -> Array:
    """Context 0 for rows that did not change at all."""
    if op.use & Use.ROW_CLASS:
        rows = _rows(op, side, first, columns, len(found))
        if not rows.all():
            found = found * np.repeat(rows != 0, columns if op.rows > 1 else len(found))
    return found


def arranged(context: Array | None, count: int, grain: int) -> tuple[Array | None, list[tuple[int, int]]]:
    """An order that brings equal contexts together (None: as they are), and the ranges of it that are coded as one."""
    if context is None or count <= 1 << grain:
        return None, [(0, count)]
    counts = np.bincount(context, minlength=CONTEXTS)
    return np.argsort(context, kind="stable"), list(_cuts(counts.tolist(), 1 << grain))


def _cuts(counts: list[int], least: int) -> Iterator[tuple[int, int]]:
    total, start, end = sum(counts), 0, 0
    for count in counts:
        end += count
        if end - start >= least and (total - end >= least or end == total):
            yield start, end
            start = end
    if start < total:
        yield start, total
