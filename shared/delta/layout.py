"""The head of a delta stream: where old and new tensors lie, and how each new one comes about.

    b"FLDELTA1" | length of the head | head (zstd) | skeleton | joined small tensors | one tensor after the other

Numbers are little-endian; every block that follows is preceded by its length. Columns, not rows: they compress.

I/O: none.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from typing import Any, Final

from shared.delta import coding
from shared.delta.errors import DeltaError
from shared.delta.split import MAX_TENSORS, WIDTH, Kind

MAGIC: Final = b"FLDELTA1"
MAX_HEAD_BYTES: Final = 2 * 1024 * 1024
MAX_SKELETON_BYTES: Final = 64 * 1024 * 1024  # held in memory, as nothing else is whole
MAX_JOINED_BYTES: Final = 16 * 1024 * 1024  # held in memory as well
MAX_RANK: Final = 64
TILE: Final = 1 << 20  # elements
#: No file of a release is larger.
MAX_FILE_BYTES: Final = 1 << 40


class Method(IntEnum):
    """How a tensor comes about."""

    SAME = 0  # the bytes of an old tensor, wherever it lay
    FULL = 1  # nothing of the old file
    BYTES = 2  # bytes, with the old tensor as dictionary
    RESIDUAL = 3  # a prediction from the old tensor, and the difference in ordered integers
    JOINED = 4  # small: residuals of all such tensors of a kind are coded as one
    GRID = 5  # a prediction, and whole steps of one size


class Use(IntFlag):
    """Parts of a prediction, and of what is known of its error."""

    NONE = 0
    SCALE = 1  # one factor
    ROWS = 2  # a factor for each row
    COLUMNS = 4  # a factor for each column
    MANTISSA = 8  # a shift for each of 1024 mantissas
    THRESHOLD = 16  # zero below
    MASK = 32  # zero where marked
    LOW_RANK = 64  # plus a product of two thin matrices
    OFFSET = 128  # integers: plus a constant, for each row or for all
    ROW_CLASS = 256  # how large the error of a row is
    COLUMN_CLASS = 512  # how large the error of a column is, beside the row's


@dataclass(frozen=True, slots=True)
class Op:
    """One tensor of the new file. `base` is the number of the old tensor it comes from, -1 is none."""

    method: Method
    kind: Kind
    base: int = -1
    base_kind: Kind = Kind.BYTES
    rows: int = 1
    use: Use = Use.NONE
    rank: int = 0
    pivot: int = 0  # Use and contexts: the largest exponent; GRID: see `step`
    grain: int = 13  # log2 of the least elements coded together
    step: int = 0  # GRID: log2 of the size of a step


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `[start, end)` of a file."""

    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Head:
    """All that a reader must know before the first block."""

    base_bytes: int
    result_bytes: int
    old: tuple[Span, ...]
    new: tuple[Span, ...]
    ops: tuple[Op, ...]

    @property
    def skeleton_bytes(self) -> int:
        """Of the new file."""
        return self.result_bytes - sum(span.size_bytes for span in self.new)


_COLUMNS: Final = tuple(field.name for field in fields(Op))
#: Column -> its bounds, both allowed.
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "method": (0, 5), "kind": (0, 6), "base": (-1, MAX_TENSORS), "base_kind": (0, 6), "rows": (1, MAX_FILE_BYTES),
    "use": (0, 1023), "rank": (0, MAX_RANK), "pivot": (0, 255), "grain": (10, 20), "step": (-1100, 1000),
}  # fmt: skip


def to_bytes(head: Head) -> bytes:
    """The head with magic and length."""
    columns: dict[str, list[int]] = {name: [int(getattr(op, name)) for op in head.ops] for name in _COLUMNS}
    columns["base"] = [base - place if base >= 0 else MAX_TENSORS for place, base in enumerate(columns["base"])]
    text = {
        "base_bytes": head.base_bytes,
        "result_bytes": head.result_bytes,
        "old": _gaps(head.old),
        "new": _gaps(head.new),
        "ops": {name: values for name, values in columns.items() if any(values)},
    }
    packed = coding.pack_bytes(json.dumps(text, separators=(",", ":")).encode(), level=19)
    return MAGIC + len(packed).to_bytes(4, "little") + packed


def parse(read: Callable[[int], bytes], *, base_bytes: int, result_bytes: int) -> Head:
    """The head at the beginning of a stream, for files of these sizes and no others.

    Raises:
        DeltaError: it is none, or of other files.
    """
    if read(len(MAGIC)) != MAGIC:
        raise DeltaError("not a delta, or of a later form")
    size = int.from_bytes(read(4), "little")
    if size > MAX_HEAD_BYTES:
        raise DeltaError(f"a delta with a head of {size} bytes")
    try:
        text = json.loads(coding.unpack_text(read(size), MAX_HEAD_BYTES))
        head = Head(
            int(text["base_bytes"]),
            int(text["result_bytes"]),
            _spans(text["old"], base_bytes),
            _spans(text["new"], result_bytes),
            _ops(text["ops"], len(text["new"]) // 2),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DeltaError(f"the head of the delta is damaged: {type(error).__name__}") from None
    if (head.base_bytes, head.result_bytes) != (base_bytes, result_bytes):
        raise DeltaError("the delta is between files of other sizes")
    _check(head)
    return head


def _gaps(spans: Sequence[Span]) -> list[int]:
    """Distance to the one before, and size, of each."""
    edge, listed = 0, []
    for span in spans:
        listed += [span.start - edge, span.size_bytes]
        edge = span.end
    return listed


def _spans(listed: list[int], limit_bytes: int) -> tuple[Span, ...]:
    if len(listed) > 2 * MAX_TENSORS or len(listed) % 2 or not all(type(number) is int for number in listed):
        raise ValueError
    edge, spans = 0, []
    for gap, size in zip(listed[::2], listed[1::2], strict=True):
        if gap < 0 or size < 0 or edge + gap + size > limit_bytes:
            raise ValueError
        spans.append(Span(edge + gap, edge + gap + size))
        edge += gap + size
    return tuple(spans)


def _ops(columns: dict[str, list[int]], count: int) -> tuple[Op, ...]:
    full: dict[str, list[int]] = {}
    for name in _COLUMNS:
        values = columns.get(name) or [0] * count
        if len(values) != count or not all(type(number) is int for number in values):
            raise ValueError
        full[name] = values
    full["base"] = [-1 if base == MAX_TENSORS else base + place for place, base in enumerate(full["base"])]
    for name, (low, high) in _BOUNDS.items():
        if not all(low <= number <= high for number in full[name]):
            raise ValueError
    return tuple(_op(dict(zip(_COLUMNS, row, strict=True))) for row in zip(*full.values(), strict=True))


def _op(row: dict[str, Any]) -> Op:
    row |= {"method": Method(row["method"]), "kind": Kind(row["kind"]), "base_kind": Kind(row["base_kind"])}
    return Op(**row | {"use": Use(row["use"])})


def _check(head: Head) -> None:
    if head.skeleton_bytes > MAX_SKELETON_BYTES:
        raise DeltaError(f"{head.skeleton_bytes} bytes outside of tensors are too many for a delta")
    joined = 0
    for op, span in zip(head.ops, head.new, strict=True):
        width = WIDTH[op.kind]
        count = span.size_bytes // width
        wide = op.rows > 1 and count // op.rows > TILE
        if span.size_bytes % width or count % op.rows or wide or op.base >= len(head.old):
            raise DeltaError("a tensor of the delta has an impossible form")
        if op.method is not Method.FULL and op.base < 0:
            raise DeltaError("a tensor of the delta comes from nowhere")
        if op.method is Method.SAME and head.old[op.base].size_bytes != span.size_bytes:
            raise DeltaError("a tensor of the delta has another size than its original")
        if op.method in (Method.RESIDUAL, Method.JOINED, Method.GRID):
            if Kind.BYTES in (op.kind, op.base_kind) or head.old[op.base].size_bytes != count * WIDTH[op.base_kind]:
                raise DeltaError("a tensor of the delta has another shape than its original")
            joined += span.size_bytes if op.method is Method.JOINED else 0
    if joined > MAX_JOINED_BYTES:
        raise DeltaError(f"{joined} bytes of small tensors are too many for a delta")
