"""The whole delta between two model files: the head and the blocks, full tensors where a delta would not pay.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from fleet.releases.delta import fitting, pairing, tiling
from shared.delta import coding, layout, numbers, prediction, rebuild
from shared.delta.layout import Head, Method, Op, Span
from shared.delta.prediction import Side
from shared.delta.split import Kind, Tensor, skeleton, split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleet.releases.delta.fitting import Fit
    from shared.delta.numbers import Array

_SMALL_BYTES: Final = 8 * 1024  # tensors up to this are coded together
_DOUBTFUL: Final = 0.7  # a delta above this part of the tensor is compared with the full one
#: A byte delta of the whole files competes up to this size of both together: its reader holds both in memory.
_BYTE_DELTA_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one tensor."""

    name: str
    method: str
    plain_bytes: int
    coded_bytes: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A stream that makes the new file out of the old one, and what is in it."""

    data: bytes
    rows: tuple[Row, ...]


class TooDifferentError(ValueError):
    """No delta within the reader's bounds; the full file it is."""


def encode(
    old: bytes | memoryview,
    new: bytes | memoryview,
    progress: Callable[[int], None] = lambda _: None,
    grids: Mapping[int, Fit] = MappingProxyType({}),
) -> Delta:
    """The smallest stream that was found. `progress` is told the bytes of each tensor that is done; `grids` says how
    `new` was snapped to `old`.

    Raises:
        TooDifferentError: the files are so little of tensors that no reader could hold the rest.
    """
    with np.errstate(all="ignore"):  # values that are no numbers are told like all others
        return _smallest(memoryview(old), memoryview(new), progress, grids)


def _smallest(
    before: memoryview, after: memoryview, progress: Callable[[int], None], grids: Mapping[int, Fit]
) -> Delta:
    found = _Encoding(before, after, progress, grids).made(split(before), split(after))
    if len(before) + len(after) <= _BYTE_DELTA_BYTES and found is not None:
        like = sum(row.coded_bytes for row in found.rows if row.method != "skeleton")
        if like > len(after) // 2:  # the byte delta of retrained tensors never wins, of odd files it may
            other = _Encoding(before, after, lambda _: None, {}).made((), ())
            if other is not None and len(other.data) < len(found.data):
                found = other
    if found is None:
        raise TooDifferentError("more bytes outside of tensors than a device may hold")
    return found


class _Encoding:
    def __init__(
        self, old: memoryview, new: memoryview, progress: Callable[[int], None], grids: Mapping[int, Fit]
    ) -> None:
        self._grids = grids
        self._old = old
        self._new = new
        self._progress = progress

    def made(self, olds: tuple[Tensor, ...], news: tuple[Tensor, ...]) -> Delta | None:
        pairs, same = pairing.pair(self._old, olds, self._new, news)
        skeletons = skeleton(self._old, olds), skeleton(self._new, news)
        if max(map(len, skeletons)) > layout.MAX_SKELETON_BYTES:
            return None
        outer = tiling.framed(coding.pack_bytes(skeletons[1], skeletons[0]))
        joined = self._joinable(olds, news, pairs, same)
        ops: list[Op] = []
        blocks: list[list[bytes]] = []
        rows: list[Row] = []
        for number, tensor in enumerate(news):
            base = pairs[number]
            before = olds[base] if base is not None else None
            if number in joined:
                made: tuple[Op, list[bytes]] = (joined[number], [])
            else:
                made = self._tensor(before, tensor, base, same=same[number], grid=self._grids.get(number))
            ops.append(made[0])
            blocks.append(made[1])
            rows.append(Row(tensor.name, described(made[0]), tensor.size_bytes, _weight(made)))
            self._progress(tensor.size_bytes)
        together, shares = self._together(olds, news, ops)
        rows = [replace(row, coded_bytes=shares.get(n, row.coded_bytes)) for n, row in enumerate(rows)]
        head = Head(len(self._old), len(self._new), _spans(olds), _spans(news), tuple(ops))
        start = layout.to_bytes(head)
        rows.append(Row("graph", "skeleton", len(skeletons[1]), len(start) + len(outer)))
        self._progress(len(skeletons[1]))
        return Delta(b"".join([start, outer, *together, *(part for parts in blocks for part in parts)]), tuple(rows))

    def _tensor(
        self, before: Tensor | None, tensor: Tensor, base: int | None, *, same: bool, grid: Fit | None
    ) -> tuple[Op, list[bytes]]:
        if before is None or base is None:
            return self._full(tensor)
        if same:
            return Op(Method.SAME, tensor.kind, base), []
        if tensor.kind is Kind.BYTES or before.kind is Kind.BYTES:
            return min(self._full(tensor), self._bytes(before, tensor, base), key=_weight)
        old, new = self._patterns(before, tensor)
        if grid is not None and grid.op.base == base and (stepped := self._grid(old, new, grid)):
            return stepped
        found = fitting.fit(old, new, before, tensor, base)
        best: tuple[Op, list[bytes]] = (found.op, tiling.tensor(old, new, found.op, found.side))
        if _weight(best) > _DOUBTFUL * tensor.size_bytes:
            best = min(best, self._full(tensor), key=_weight)
        return best

    def _grid(self, old: Array, new: Array, grid: Fit) -> tuple[Op, list[bytes]] | None:
        """Whole steps, where they really lead to the new tensor."""
        pattern, _ = prediction.predicted(old, grid.op, grid.side, 0, len(new) // grid.op.rows)
        if not np.array_equal(rebuild.stepped(pattern, tiling.steps(pattern, new, grid.op), grid.op), new):
            return None
        options = [
            (found.op, tiling.tensor(old, new, found.op, found.side)) for found in fitting.stepped(old, new, grid)
        ]
        return min(options, key=_weight)

    def _full(self, tensor: Tensor) -> tuple[Op, list[bytes]]:
        pattern = numbers.bits(self._new[tensor.start : tensor.end], tensor.kind)
        blocks = [
            tiling.framed(coding.pack_plain(pattern[first:last], tensor.kind))
            for first, last in rebuild.tiles(len(pattern), 1)
        ]
        return Op(Method.FULL, tensor.kind), blocks

    def _bytes(self, before: Tensor, tensor: Tensor, base: int) -> tuple[Op, list[bytes]]:
        blocks = []
        for start in range(0, tensor.size_bytes, rebuild.BYTES_TILE):
            end = min(start + rebuild.BYTES_TILE, tensor.size_bytes)
            like = self._old[before.start + start : min(before.start + start + rebuild.BYTES_TILE, before.end)]
            blocks.append(tiling.framed(coding.pack_bytes(self._new[tensor.start + start : tensor.start + end], like)))
        return Op(Method.BYTES, tensor.kind, base), blocks

    def _patterns(self, before: Tensor, tensor: Tensor) -> tuple[Array, Array]:
        return (
            numbers.bits(self._old[before.start : before.end], before.kind),
            numbers.bits(self._new[tensor.start : tensor.end], tensor.kind),
        )

    def _joinable(
        self, olds: Sequence[Tensor], news: Sequence[Tensor], pairs: Sequence[int | None], same: Sequence[bool]
    ) -> dict[int, Op]:
        found: dict[int, Op] = {}
        for number, tensor in enumerate(news):
            base = pairs[number]
            if base is None or same[number] or tensor.size_bytes > _SMALL_BYTES or tensor.kind is Kind.BYTES:
                continue
            if olds[base].kind is tensor.kind and len(found) * _SMALL_BYTES < layout.MAX_JOINED_BYTES // 2:
                found[number] = Op(Method.JOINED, tensor.kind, base, tensor.kind)
        return found

    def _together(
        self, olds: Sequence[Tensor], news: Sequence[Tensor], ops: list[Op]
    ) -> tuple[list[bytes], dict[int, int]]:
        """The blocks of all small tensors, and the share of each; their ops learn the pivot."""
        blocks: list[bytes] = []
        shares: dict[int, int] = {}
        for kind in Kind:
            members = [n for n, op in enumerate(ops) if op.method is Method.JOINED and op.kind is kind]
            if not members:
                continue
            before = b"".join(self._old[olds[ops[n].base].start : olds[ops[n].base].end] for n in members)
            after = b"".join(self._new[news[n].start : news[n].end] for n in members)
            old, new = numbers.bits(before, kind), numbers.bits(after, kind)
            pivot = int(numbers.exponents(old, kind).max(initial=0)) if kind in numbers.FLOATS else 0
            op = Op(Method.RESIDUAL, kind, 0, kind, pivot=pivot)
            made = [
                block
                for first, last in rebuild.tiles(len(new), 1)
                for block in tiling.tile(old[first:last], new[first:last], op, Side(), first, last)
            ]
            blocks += made
            size = sum(map(len, made))
            for n in members:
                ops[n] = replace(ops[n], pivot=pivot)
                shares[n] = size * news[n].size_bytes // max(1, len(after))
        return blocks, shares


def described(op: Op) -> str:
    """The method for people: `residual of rows x factor, mantissa`."""
    words = {
        layout.Use.SCALE: "scale", layout.Use.ROWS: "row scale", layout.Use.COLUMNS: "column scale",
        layout.Use.MANTISSA: "decay", layout.Use.THRESHOLD: "pruned", layout.Use.MASK: "sparse",
        layout.Use.LOW_RANK: f"rank {op.rank}", layout.Use.OFFSET: "requantised",
    }  # fmt: skip
    parts = [word for use, word in words.items() if op.use & use]
    if op.kind is not op.base_kind and op.method is Method.RESIDUAL:
        parts.insert(0, "cast")
    return f"{op.method.name.lower()}{': ' if parts else ''}{' + '.join(parts)}"


def _spans(tensors: Sequence[Tensor]) -> tuple[Span, ...]:
    return tuple(Span(tensor.start, tensor.end) for tensor in tensors)


def _weight(found: tuple[Op, list[bytes]]) -> int:
    return sum(map(len, found[1]))
