"""What a tensor is expected to be: the old one, changed by a few parameters that travel with it.

Every step is a single IEEE operation on float64 for each element and one rounding at the end, so that x86 and ARM
come to the same bits. Values that are not finite stay as they were.

I/O: none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from shared.delta import coding, numbers
from shared.delta.layout import Op, Use
from shared.delta.numbers import Array
from shared.delta.split import Kind

MANTISSAS: Final = 1024
_VALUES: Final = Use.SCALE | Use.ROWS | Use.COLUMNS | Use.LOW_RANK | Use.OFFSET


def _none() -> Array:
    return np.zeros(0, np.float32)


@dataclass(slots=True)
class Side:
    """Parameters of one prediction; those that are not in use are empty."""

    rows: Array = field(default_factory=_none)  # float32: factor - 1 for each row, or one
    columns: Array = field(default_factory=_none)  # float32: factor - 1
    offset: Array = field(default_factory=_none)  # float32 for each row, or one
    left: Array = field(default_factory=_none)  # float32, rows x rank
    right: Array = field(default_factory=_none)  # float32, rank x columns
    mantissa: Array = field(default_factory=lambda: np.zeros(0, np.int16))
    threshold: Array = field(default_factory=lambda: np.zeros(0, np.float64))
    mask: Array = field(default_factory=lambda: np.zeros(0, np.uint8))  # packed bits
    row_class: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    column_class: Array = field(default_factory=lambda: np.zeros(0, np.uint8))


def forms(op: Op, count: int) -> Iterator[tuple[str, np.dtype[np.generic], int]]:
    """Name, type and length of each parameter that travels, in order."""
    columns = count // op.rows
    use = op.use
    if use & (Use.SCALE | Use.ROWS):
        yield "rows", np.dtype(np.float32), op.rows if use & Use.ROWS else 1
    if use & Use.COLUMNS:
        yield "columns", np.dtype(np.float32), columns
    if use & Use.OFFSET:
        yield "offset", np.dtype(np.float32), op.rows if use & Use.ROWS else 1
    if use & Use.LOW_RANK:
        yield "left", np.dtype(np.float32), op.rows * op.rank
        yield "right", np.dtype(np.float32), op.rank * columns
    if use & Use.MANTISSA:
        yield "mantissa", np.dtype(np.int16), MANTISSAS
    if use & Use.THRESHOLD:
        yield "threshold", np.dtype(np.float64), 1
    if use & Use.MASK:
        yield "mask", np.dtype(np.uint8), (count + 7) // 8
    if use & Use.ROW_CLASS:
        yield "row_class", np.dtype(np.uint8), op.rows
    if use & Use.COLUMN_CLASS:
        yield "column_class", np.dtype(np.uint8), columns


def side_bytes(op: Op, count: int) -> int:
    """Of the plain parameters."""
    return sum(dtype.itemsize * length for _, dtype, length in forms(op, count))


def pack(side: Side, op: Op, count: int) -> bytes:
    """The parameters as a block: equal bytes of neighbours together, which zstd likes."""
    parts = []
    for name, dtype, length in forms(op, count):
        array = np.ascontiguousarray(getattr(side, name).reshape(-1), dtype)
        if len(array) != length:
            raise ValueError(f"{name} has {len(array)} values instead of {length}")
        parts.append(array.view(np.uint8).reshape(length, dtype.itemsize).T.tobytes())
    return coding.pack_bytes(b"".join(parts))


def unpack(block: bytes, op: Op, count: int) -> Side:
    """The parameters in a block.

    Raises:
        DeltaError: it holds something else.
    """
    plain = np.frombuffer(coding.unpack_bytes(block, side_bytes(op, count)), np.uint8)
    side, place = Side(), 0
    for name, dtype, length in forms(op, count):
        size = dtype.itemsize * length
        planes = plain[place : place + size].reshape(dtype.itemsize, length)
        setattr(side, name, np.ascontiguousarray(planes.T).reshape(-1).view(dtype))
        place += size
    if op.use & Use.LOW_RANK:
        side.left = side.left.reshape(op.rows, op.rank)
        side.right = side.right.reshape(op.rank, -1)
    return side


def predicted(old: Array, op: Op, side: Side, first: int, columns: int) -> tuple[Array, Array | None]:
    """The expected bit patterns of a tile that begins at element `first`, and for integers the unrounded values.

    `old` are the patterns of the old tensor there. Tiles of a tensor with rows are whole rows.
    """
    exact: Array | None = None
    pattern = old
    if op.use & _VALUES or op.kind is not op.base_kind:
        value = _value(old, op, side, first, columns)
        pattern = numbers.patterns(value, op.kind)
        exact = value if op.kind not in numbers.FLOATS else None
        if op.kind is op.base_kind and op.kind in numbers.FLOATS:
            odd = numbers.unlimited(old, op.kind)
            pattern = np.where(odd, old, pattern) if odd.any() else pattern
    if op.use & Use.MANTISSA and op.kind is Kind.FP32:
        shifted = pattern + side.mantissa.astype(np.int32)[(pattern >> 13) & (MANTISSAS - 1)]
        pattern = np.where((pattern & 0x7F80_0000) != 0, shifted, pattern)
    if op.use & Use.THRESHOLD:
        low = np.abs(numbers.values(old, op.base_kind)) <= side.threshold[0]
        pattern = np.where(low, pattern.dtype.type(0), pattern)
    if op.use & Use.MASK:
        marked = np.unpackbits(side.mask[first // 8 : (first + len(old) + 7) // 8 + 1])[first % 8 :][: len(old)]
        pattern = np.where(marked != 0, pattern.dtype.type(0), pattern)
    return pattern, exact


def _value(old: Array, op: Op, side: Side, first: int, columns: int) -> Array:
    before = numbers.values(old, op.base_kind)
    value = before
    table = value.reshape(-1, columns) if op.rows > 1 else value.reshape(1, -1)
    row = first // columns if op.rows > 1 else 0
    rows = slice(row, row + len(table))
    across = slice(0, columns) if op.rows > 1 else slice(first, first + len(old))
    with np.errstate(all="ignore"):
        if op.use & Use.ROWS:
            table = table * (1.0 + side.rows[rows].astype(np.float64))[:, None]
        elif op.use & Use.SCALE:
            table = table * (1.0 + np.float64(side.rows[0]))
        if op.use & Use.COLUMNS:
            table = table * (1.0 + side.columns[across].astype(np.float64))[None, :]
        if op.use & Use.OFFSET:
            offset = side.offset.astype(np.float64)
            table = table + (offset[rows][:, None] if op.use & Use.ROWS else offset[0])
        if op.use & Use.LOW_RANK:
            left, right = side.left.astype(np.float64), side.right.astype(np.float64)
            table = table.copy()
            for rank in range(op.rank):
                table += left[rows, rank][:, None] * right[rank, across][None, :]
    value = table.reshape(-1)
    if op.kind in numbers.FLOATS:
        finite = np.isfinite(before)
        if not finite.all():
            value = np.where(finite, value, before)
    return value
