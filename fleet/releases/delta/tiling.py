"""Tiles of a tensor, coded: the other direction of `shared.delta.rebuild.tile`.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shared.delta import coding, contexts, numbers, prediction
from shared.delta.layout import Method
from shared.delta.rebuild import tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.delta.layout import Op
    from shared.delta.numbers import Array
    from shared.delta.prediction import Side

_PIECES: Final = 8  # that a sample is taken from


def framed(block: bytes) -> bytes:
    """A block with its length."""
    return len(block).to_bytes(4, "little") + block


def tile(old: Array, new: Array, op: Op, side: Side, first: int, columns: int) -> list[bytes]:
    """The blocks of one tile that begins at element `first`."""
    pattern, exact = prediction.predicted(old, op, side, first, columns)
    context = contexts.contexts(pattern, exact, op, side, first, columns)
    order, groups = contexts.arranged(context, len(old), op.grain)
    if op.method is Method.GRID:
        coded = steps(pattern, new, op)
    else:
        coded = numbers.ordered(new, op.kind) - numbers.ordered(pattern, op.kind)
    if order is not None:
        coded = coded[order]
    return [framed(coding.pack_integers(coded[start:end])) for start, end in groups]


def steps(pattern: Array, new: Array, op: Op) -> Array:
    """The whole steps from the prediction to the new values, int32; right only where `rebuild.stepped` gives `new`."""
    with np.errstate(all="ignore"):
        way = numbers.values(new, op.kind) - numbers.values(pattern, op.kind)
        found = np.nan_to_num(np.rint(way / np.ldexp(1.0, op.step)), nan=0, posinf=0, neginf=0)
    return np.asarray(np.clip(found, -(2.0**31), 2.0**31 - 1), np.int32)


def tensor(old: Array, new: Array, op: Op, side: Side) -> list[bytes]:
    """All blocks of a tensor: its parameters, then its tiles."""
    columns = len(new) // op.rows
    blocks = [framed(prediction.pack(side, op, len(new)))] if prediction.side_bytes(op, len(new)) else []
    for first, last in tiles(len(new), columns if op.rows > 1 else 1):
        blocks += tile(old[first:last], new[first:last], op, side, first, columns)
    return blocks


def sample_bytes(old: Array, new: Array, op: Op, side: Side, count: int) -> float:
    """About what the tensor takes, from about `count` of its elements."""
    columns = len(new) // op.rows
    seen = size = 0
    for first, last in spread(len(new), columns if op.rows > 1 else 1, count, pieces=1):
        size += sum(map(len, tile(old[first:last], new[first:last], op, side, first, columns)))
        seen += last - first
    extra = len(prediction.pack(side, op, len(new))) if prediction.side_bytes(op, len(new)) else 0
    return extra + size * len(new) / max(1, seen)


def spread(count: int, columns: int, wanted: int, *, pieces: int = _PIECES) -> Iterator[tuple[int, int]]:
    """Ranges of whole rows, evenly over the tensor, of about `wanted` elements together."""
    if count <= wanted:
        yield 0, count
        return
    rows = count // columns
    size = max(1, wanted // pieces // columns)
    for start in np.unique(np.linspace(0, max(0, rows - size), pieces + 2)[1:-1].astype(int)).tolist():
        yield start * columns, min(count, (start + size) * columns)
