"""The stream and the old file -> the new file, piece by piece, in the memory of a few tiles.

I/O: none.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from shared.delta import coding, contexts, layout, numbers, prediction
from shared.delta.errors import DeltaError
from shared.delta.layout import TILE, Head, Method, Op, Span
from shared.delta.numbers import Array
from shared.delta.prediction import Side
from shared.delta.split import WIDTH, Kind

_SIDE_LIMIT_BYTES: Final = 1 << 30
BYTES_TILE: Final = 4 << 20


class Stream:
    """Exact reads from pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def read(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            DeltaError: the stream ends before.
        """
        while len(self._held) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise DeltaError("the delta ends too early")
            self._held += piece
        found = bytes(self._held[:count])
        del self._held[:count]
        return found

    def block(self, limit_bytes: int) -> bytes:
        """The next block, which must not be longer than `limit_bytes`."""
        size = int.from_bytes(self.read(4), "little")
        if size > limit_bytes:
            raise DeltaError(f"a block of {size} bytes in a delta, at most {limit_bytes} expected")
        return self.read(size)

    def ended(self) -> bool:
        """Whether nothing is left."""
        return not self._held and next((piece for piece in self._pieces if piece), None) is None


def rebuild(base: memoryview, pieces: Iterable[bytes], *, result_bytes: int) -> Iterator[bytes | memoryview]:
    """The new file of `result_bytes` bytes, in pieces, from the old one and the delta in `pieces`.

    The caller compares the digest of what comes out before anything uses it.

    Raises:
        DeltaError: damaged, or for another file.
    """
    stream = Stream(pieces)
    head = layout.parse(stream.read, base_bytes=len(base), result_bytes=result_bytes)
    work = _Rebuilding(base, stream, head)
    try:
        yield from work.run()
    except (ValueError, IndexError, OverflowError, MemoryError, TypeError) as error:
        raise DeltaError(f"the delta is damaged: {type(error).__name__}: {error}") from None
    if not stream.ended():
        raise DeltaError("the delta goes on after its end")


class _Rebuilding:
    def __init__(self, base: memoryview, stream: Stream, head: Head) -> None:
        self._base = base
        self._stream = stream
        self._head = head

    def run(self) -> Iterator[bytes | memoryview]:
        skeleton = memoryview(self._skeleton())
        joined = self._joined()
        edge = used = 0
        for number, (op, span) in enumerate(zip(self._head.ops, self._head.new, strict=True)):
            gap = span.start - edge
            yield skeleton[used : used + gap]
            used, edge = used + gap, span.end
            if op.method is Method.JOINED:
                yield joined.pop(number)
            else:
                yield from self._tensor(op, span)
        yield skeleton[used:]

    def _skeleton(self) -> bytes:
        edges = [0, *(edge for span in self._head.old for edge in (span.start, span.end)), len(self._base)]
        spans = list(zip(edges[::2], edges[1::2], strict=True))
        if sum(end - start for start, end in spans) > layout.MAX_SKELETON_BYTES:
            raise DeltaError("too many bytes outside of the old tensors")
        like = b"".join(self._base[start:end] for start, end in spans)
        block = self._stream.block(self._head.skeleton_bytes + coding.SLACK_BYTES)
        return coding.unpack_bytes(block, self._head.skeleton_bytes, like)

    def _tensor(self, op: Op, span: Span) -> Iterator[bytes | memoryview]:
        match op.method:
            case Method.SAME:
                old = self._head.old[op.base]
                for start in range(old.start, old.end, BYTES_TILE):
                    yield self._base[start : min(start + BYTES_TILE, old.end)]
            case Method.BYTES:
                yield from self._bytes(self._head.old[op.base], span)
            case Method.FULL:
                yield from self._full(op, span)
            case _:
                yield from self._predicted(op, span)

    def _bytes(self, old: Span, span: Span) -> Iterator[bytes]:
        for start in range(0, span.size_bytes, BYTES_TILE):
            count = min(BYTES_TILE, span.size_bytes - start)
            like = self._base[old.start + start : min(old.start + start + BYTES_TILE, old.end)]
            yield coding.unpack_bytes(self._stream.block(count + coding.SLACK_BYTES), count, like)

    def _full(self, op: Op, span: Span) -> Iterator[memoryview]:
        count = span.size_bytes // WIDTH[op.kind]
        for first, last in tiles(count, 1):
            limit = (last - first) * WIDTH[op.kind] + coding.SLACK_BYTES
            yield coding.unpack_plain(self._stream.block(2 * limit), last - first, op.kind).data.cast("B")

    def _predicted(self, op: Op, span: Span) -> Iterator[memoryview]:
        count = span.size_bytes // WIDTH[op.kind]
        columns = count // op.rows
        limit = prediction.side_bytes(op, count)
        if limit > min(_SIDE_LIMIT_BYTES, 2 * span.size_bytes + coding.SLACK_BYTES):
            raise DeltaError("a prediction with more parameters than values")
        side = prediction.unpack(self._stream.block(limit + coding.SLACK_BYTES), op, count) if limit else Side()
        old = self._head.old[op.base]
        width = WIDTH[op.base_kind]
        for first, last in tiles(count, columns if op.rows > 1 else 1):
            before = numbers.bits(self._base[old.start + first * width : old.start + last * width], op.base_kind)
            yield tile(self._stream.block, before, op, side, first, columns).data.cast("B")

    def _joined(self) -> dict[int, bytes]:
        """The small tensors of each kind, by number."""
        found: dict[int, bytes] = {}
        for kind in Kind:
            members = [n for n, op in enumerate(self._head.ops) if op.method is Method.JOINED and op.kind is kind]
            if not members:
                continue
            spans = [self._head.old[self._head.ops[number].base] for number in members]
            if any(self._head.ops[number].base_kind is not kind for number in members):
                raise DeltaError("small tensors of a delta change their kind")
            before = b"".join(self._base[span.start : span.end] for span in spans)
            op = self._head.ops[members[0]]
            joined = Op(Method.RESIDUAL, kind, op.base, kind, pivot=op.pivot)
            width, place = WIDTH[kind], 0
            parts = [
                tile(self._stream.block, numbers.bits(before, kind)[first:last], joined, Side(), first, last).tobytes()
                for first, last in tiles(len(before) // width, 1)
            ]
            whole = b"".join(parts)
            for number, span in zip(members, spans, strict=True):
                found[number] = whole[place : place + span.size_bytes]
                place += span.size_bytes
        return found


def tiles(count: int, columns: int) -> Iterator[tuple[int, int]]:
    """Ranges of elements that are coded on their own: whole rows, about `TILE` elements."""
    step = max(1, TILE // columns) * columns
    for first in range(0, count, step):
        yield first, min(first + step, count)


def tile(block: Callable[[int], bytes], old: Array, op: Op, side: Side, first: int, columns: int) -> Array:
    """The bit patterns of one tile; `block` brings its blocks, one after the other."""
    count = len(old)
    with np.errstate(all="ignore"):
        pattern, exact = prediction.predicted(old, op, side, first, columns)
        context = contexts.contexts(pattern, exact, op, side, first, columns)
    order, groups = contexts.arranged(context, count, op.grain)
    dtype = np.int32 if op.method is Method.GRID else pattern.dtype
    coded = np.empty(count, dtype)
    for start, end in groups:
        limit = (end - start) * coded.itemsize + coding.SLACK_BYTES
        coded[start:end] = coding.unpack_integers(block(limit), end - start, dtype)
    if order is not None:
        scattered = np.empty_like(coded)
        scattered[order] = coded
        coded = scattered
    if op.method is Method.GRID:
        return stepped(pattern, coded, op)
    result: Array = numbers.ordered(numbers.ordered(pattern, op.kind) + coded, op.kind)
    return result


def stepped(pattern: Array, steps: Array, op: Op) -> Array:
    """The prediction plus whole steps of 2 ** `op.step`, rounded once; without a step the prediction itself."""
    with np.errstate(all="ignore"):
        moved = numbers.patterns(numbers.values(pattern, op.kind) + steps * np.ldexp(1.0, op.step), op.kind)
    return np.where(steps != 0, moved, pattern)
