"""The prediction of a tensor from its original that leaves the least to tell.

Candidates are fitted on all elements and weighed on a sample: bits for the residuals and bits for the parameters.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from fleet.releases.delta import low_rank, tiling
from shared.delta import contexts, numbers, prediction
from shared.delta.layout import TILE, Method, Op, Use
from shared.delta.prediction import MANTISSAS, Side
from shared.delta.split import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.delta.numbers import Array
    from shared.delta.split import Tensor

_SAMPLE: Final = 1 << 17  # elements
_MATRIX: Final = 1 << 14  # elements from which matrices of parameters may pay
_GRAINS: Final = (13, 16)


@dataclass(frozen=True, slots=True)
class Fit:
    """A prediction and what is known of its error."""

    op: Op
    side: Side


@dataclass(frozen=True, slots=True)
class _Task:
    """Old and new patterns of one tensor; `shape` is rows and columns of both."""

    old: Array
    new: Array
    op: Op
    shape: tuple[int, int]

    def values(self) -> tuple[Array, Array]:
        old = numbers.values(self.old, self.op.base_kind).reshape(self.shape)
        new = numbers.values(self.new, self.op.kind).reshape(self.shape)
        return np.nan_to_num(old, posinf=0, neginf=0), np.nan_to_num(new, posinf=0, neginf=0)


def fit(old: Array, new: Array, before: Tensor, after: Tensor, base: int) -> Fit:
    """How `new` (patterns) is best told by `old`, the tensor number `base` of the old file."""
    rows = after.rows if len(new) // after.rows <= TILE else 1
    op = Op(Method.RESIDUAL, after.kind, base, before.kind, rows=rows)
    task = _Task(old, new, op, (rows, len(new) // rows))
    best = _best_prediction(task)
    best = _zeros(task, best)
    return _classed(task, best)


def predict(old: Array, new: Array, before: Tensor, after: Tensor, base: int) -> Fit:
    """The prediction alone, without what is known of its error."""
    rows = after.rows if len(new) // after.rows <= TILE else 1
    op = Op(Method.RESIDUAL, after.kind, base, before.kind, rows=rows)
    return _best_prediction(_Task(old, new, op, (rows, len(new) // rows)))


def stepped(old: Array, new: Array, found: Fit) -> list[Fit]:
    """Ways to code whole steps from the prediction `found`, with classes of their size and without."""
    shape = (found.op.rows, len(new) // found.op.rows)
    pattern, _ = prediction.predicted(old, found.op, found.side, 0, shape[1])
    size = np.abs(tiling.steps(pattern, new, found.op).astype(np.float64))
    if found.op.rows == 1 or not size.any():
        return [found]
    row_class, column_class = _classes(size.reshape(shape))
    classed = replace(found.op, use=found.op.use | Use.ROW_CLASS | Use.COLUMN_CLASS)
    return [found, Fit(classed, replace(found.side, row_class=row_class, column_class=column_class))]


def _best_prediction(task: _Task) -> Fit:
    first = Fit(task.op, Side())
    if np.array_equal(task.old, task.new):
        return first
    old, new = task.values()
    candidates = [first, *(_scales(task, old, new) if task.op.kind in numbers.FLOATS else _affine(task, old, new))]
    best = min(candidates, key=lambda found: _cost(task, found))
    if task.op.kind in numbers.FLOATS and len(task.new) >= _MATRIX:
        better = [*_low_rank(task, old, new), *_mantissa(task, best)]
        best = min([best, *better], key=lambda found: _cost(task, found))
    return best


def _scales(task: _Task, old: Array, new: Array) -> Iterator[Fit]:
    """Rows, columns or all by a factor: a batch normalisation that was folded in, or weight decay."""
    rows, columns = task.shape
    with np.errstate(all="ignore"):
        slopes = np.nan_to_num(np.einsum("ij,ij->i", old, new) / np.einsum("ij,ij->i", old, old) - 1, nan=0.0)
        across = np.nan_to_num(np.einsum("ij,ij->j", old, new) / np.einsum("ij,ij->j", old, old) - 1, nan=0.0)
    slopes, across = (np.clip(found, -1e6, 1e6).astype(np.float32) for found in (slopes, across))
    quiet = np.argsort(np.abs(new - old * (1 + slopes[:, None])).mean(1), kind="stable")[: max(1, rows // 50)]
    one = np.median(slopes[quiet]).astype(np.float32).reshape(1)
    if one[0]:
        yield Fit(replace(task.op, use=Use.SCALE), Side(rows=one))
    if rows > 1 and columns >= 8:
        yield Fit(replace(task.op, use=Use.ROWS), Side(rows=slopes))
    if rows >= 8 and columns > 1:
        yield Fit(replace(task.op, use=Use.COLUMNS), Side(columns=across))


def _affine(task: _Task, old: Array, new: Array) -> Iterator[Fit]:
    """Integers whose scale or zero point moved."""
    rows, columns = task.shape
    yield _line(task, old.reshape(1, -1), new.reshape(1, -1), Use.SCALE)
    if rows > 1 and columns >= 32:
        yield _line(task, old, new, Use.ROWS)


def _line(task: _Task, old: Array, new: Array, how: Use) -> Fit:
    middle, centre = old.mean(1), new.mean(1)
    with np.errstate(all="ignore"):
        spread = np.mean((old - middle[:, None]) ** 2, axis=1)
        slope = np.mean((old - middle[:, None]) * (new - centre[:, None]), axis=1) / spread
    slope = np.where(np.isfinite(slope), slope, 1.0)
    factor = (slope - 1).astype(np.float32)
    offset = (centre - slope * middle).astype(np.float32)
    return Fit(replace(task.op, use=how | Use.OFFSET), Side(rows=factor, offset=offset))


def _low_rank(task: _Task, old: Array, new: Array) -> Iterator[Fit]:
    if task.op.kind is task.op.base_kind and task.op.rows > 1:
        ulps = np.spacing(np.abs(new).astype(np.float32)).astype(np.float64)
        found = low_rank.factors(new - old, np.maximum(ulps, np.median(ulps) / 64))
        if found is not None and np.isfinite(found[0]).all() and np.isfinite(found[1]).all():
            op = replace(task.op, use=Use.LOW_RANK, rank=found[0].shape[1])
            yield Fit(op, Side(left=found[0], right=found[1]))


def _mantissa(task: _Task, best: Fit) -> Iterator[Fit]:
    """What many roundings of a factor near one left behind: it depends on the mantissa alone."""
    if task.op.kind is not Kind.FP32 or task.op.rows < 64:
        return
    plain = Fit(task.op, Side())
    for start in (plain, best) if best.op.use else (plain,):
        pattern, residual = _residual(task, start)
        table = np.abs(residual.astype(np.float64)).reshape(task.shape).mean(1)
        quiet = np.sort(np.argsort(table, kind="stable")[: max(8, task.op.rows // 10)])
        near = (pattern.reshape(task.shape)[quiet] >> 13).reshape(-1) & (MANTISSAS - 1)
        way = task.new - pattern  # of the magnitude, whatever the sign
        shifts = _medians(near, way.reshape(task.shape)[quiet].reshape(-1))
        if shifts.any():
            op, side = replace(start.op, use=start.op.use | Use.MANTISSA), replace(start.side, mantissa=shifts)
            yield Fit(op, side)


def _medians(bins: Array, numbers_: Array) -> Array:
    order = np.lexsort((numbers_, bins))
    counts = np.bincount(bins, minlength=MANTISSAS)
    ends = np.cumsum(counts)
    middle = np.clip(ends - counts + counts // 2, 0, max(0, len(order) - 1))
    found = np.where(counts > 0, numbers_[order][middle], 0)
    return np.clip(found, -32768, 32767).astype(np.int16)


def _zeros(task: _Task, best: Fit) -> Fit:
    """Weights that were cut off: all below a threshold, or here and there."""
    if task.op.kind not in numbers.FLOATS:
        return best
    old = np.abs(numbers.values(task.old, task.op.base_kind))
    cut = (task.new == 0) & (old != 0)
    if np.count_nonzero(cut) < 0.01 * len(cut):
        return best
    threshold = old[cut].max()
    if not np.any((old <= threshold) & (task.new != 0)):
        found = Fit(replace(task.op, use=Use.THRESHOLD), Side(threshold=np.array([threshold])))
    else:
        found = Fit(replace(task.op, use=Use.MASK), Side(mask=np.packbits(cut)))
    rest = ~cut
    if np.array_equal(task.old[rest], task.new[rest]) and task.op.kind is task.op.base_kind:
        return found
    op = replace(best.op, use=best.op.use | found.op.use)
    return Fit(op, replace(best.side, threshold=found.side.threshold, mask=found.side.mask))


def _classed(task: _Task, best: Fit) -> Fit:
    """With the classes of error that pay, and the grain that pays."""
    pattern, residual = _residual(task, best)
    op = best.op
    if op.kind in numbers.FLOATS:
        op = replace(op, pivot=int(numbers.exponents(pattern, op.kind).max(initial=0)))
        error = np.abs(np.nan_to_num(numbers.values(pattern, op.kind) - numbers.values(task.new, op.kind)))
    else:
        error = np.abs(residual.astype(np.float64))
    plain = Fit(op, best.side)
    if len(task.new) < 1024 or not residual.any():
        return plain
    row_class, column_class = _classes(error.reshape(task.shape))
    options = [plain]
    for use, side in (
        (Use.ROW_CLASS, replace(best.side, row_class=row_class)),
        (Use.COLUMN_CLASS, replace(best.side, column_class=column_class)),
        (Use.ROW_CLASS | Use.COLUMN_CLASS, replace(best.side, row_class=row_class, column_class=column_class)),
    ):
        wanted = op.rows > 1 or use is not Use.ROW_CLASS
        if wanted and (op.rows > 1):
            options.append(Fit(replace(op, use=op.use | use), side))
    if len(task.new) > 1 << _GRAINS[1]:
        options += [Fit(replace(found.op, grain=_GRAINS[1]), found.side) for found in options]
    return min(options, key=lambda found: tiling.sample_bytes(task.old, task.new, found.op, found.side, _SAMPLE * 2))


def _classes(error: Array) -> tuple[Array, Array]:
    """Half octaves of the mean error of each row (0: none at all), and of each column against all."""
    rows = error.mean(1)
    with np.errstate(all="ignore"):
        level = np.rint(2 * np.log2(rows))
        columns = error.mean(0)
        beside = np.rint(2 * np.log2(columns / columns.mean()))
    finite = level[np.isfinite(level)]
    lowest = max(finite.min(), finite.max() - 80) if len(finite) else 0
    row_class = np.where(rows > 0, np.clip(level - lowest + 1, 1, 100), 0).astype(np.uint8)
    shifted = np.clip(np.nan_to_num(beside, nan=0, neginf=-contexts.COLUMN_ZERO), -contexts.COLUMN_ZERO, 12)
    return row_class, (shifted + contexts.COLUMN_ZERO).astype(np.uint8)


def _residual(task: _Task, found: Fit) -> tuple[Array, Array]:
    columns = task.shape[1]
    pattern, _ = prediction.predicted(task.old, found.op, found.side, 0, columns)
    return pattern, numbers.ordered(task.new, found.op.kind) - numbers.ordered(pattern, found.op.kind)


def _cost(task: _Task, found: Fit) -> float:
    """About how many bits it takes."""
    count = len(task.new)
    bits = 8.0 * prediction.side_bytes(found.op, count) if found.op.use else 0.0
    seen, total = 0, 0.0
    for first, last in tiling.spread(count, task.shape[1] if found.op.rows > 1 else 1, _SAMPLE):
        pattern, _ = prediction.predicted(task.old[first:last], found.op, found.side, first, task.shape[1])
        residual = numbers.ordered(task.new[first:last], found.op.kind) - numbers.ordered(pattern, found.op.kind)
        total += float(np.sum(np.log2(1 + 2 * np.abs(residual.astype(np.float64)))))
        seen += last - first
    return bits + total * count / max(1, seen)
