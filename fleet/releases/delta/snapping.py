"""The change to the last release, rounded to a grid before anything is signed (docs/delta.md#snap).

Each weight moves from its predicted value by whole steps; the step of a tensor is a power of two, a part of what is
usually left to tell. What is published is the snapped file, and devices rebuild that one bit for bit.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from fleet.releases.delta import fitting, pairing, tiling
from fleet.releases.delta.fitting import Fit
from shared.delta import numbers, prediction, rebuild
from shared.delta.layout import Method
from shared.delta.split import Kind, split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.delta.numbers import Array
    from shared.delta.split import Tensor

#: Largest step as a part of the usual change: finer ones are tried when the outputs move too far.
FACTORS: Final = (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625)
LEAST: Final = 4096  # elements; smaller tensors cost next to nothing


@dataclass(frozen=True, slots=True)
class Snap:
    """The snapped file; and by number of the tensor how its weights come about, for `encoding.encode`."""

    data: bytes
    grids: Mapping[int, Fit]


def plan(old: bytes, new: bytes) -> dict[int, Fit]:
    """What to predict each float tensor of `new` by, from its original in `old`: grids start there."""
    before, after = memoryview(old), memoryview(new)
    olds, news = split(old), split(new)
    pairs, same = pairing.pair(before, olds, after, news)
    found = {}
    with np.errstate(all="ignore"):
        for number, (tensor, base, equal) in enumerate(zip(news, pairs, same, strict=True)):
            if base is None or equal or tensor.kind not in numbers.FLOATS or tensor.count < LEAST:
                continue
            if olds[base].kind is tensor.kind:
                first, last = _patterns(before, olds[base]), _patterns(after, tensor)
                found[number] = fitting.predict(first, last, olds[base], tensor, base)
    return found


def snap(old: bytes, new: bytes, planned: Mapping[int, Fit], factor: float) -> Snap:
    """`new` with every planned tensor in whole steps of about `factor` times the mean size of what is unpredicted."""
    before, after = memoryview(old), memoryview(new)
    olds, news = split(old), split(new)
    made = bytearray(new)
    grids = {}
    with np.errstate(all="ignore"):
        for number, fit in planned.items():
            tensor = news[number]
            first, last = _patterns(before, olds[fit.op.base]), _patterns(after, tensor)
            pattern, _ = prediction.predicted(first, fit.op, fit.side, 0, len(last) // fit.op.rows)
            change = numbers.values(last, tensor.kind) - numbers.values(pattern, tensor.kind)
            usual = float(np.sqrt(np.mean(np.square(change[np.isfinite(change)]))))
            if usual and np.isfinite(usual):
                step = max(-1000, round(float(np.log2(usual * factor))))
                op = replace(fit.op, method=Method.GRID, step=step, grain=16)
                steps = tiling.steps(pattern, last, op)
                made[tensor.start : tensor.end] = rebuild.stepped(pattern, steps, op).tobytes()
                grids[number] = Fit(op, fit.side)
    return Snap(bytes(made), grids)


def _patterns(data: memoryview, tensor: Tensor) -> Array:
    return numbers.bits(data[tensor.start : tensor.end], tensor.kind)


def halved(data: bytes) -> bytes:
    """The file with every 32-bit weight rounded to what 16 bits hold."""
    made = bytearray(data)
    with np.errstate(all="ignore"):
        for tensor in split(data):
            if tensor.kind is Kind.FP32:
                values = np.frombuffer(data, np.float32, tensor.count, tensor.start)
                made[tensor.start : tensor.end] = values.astype(np.float16).astype(np.float32).tobytes()
    return bytes(made)


def distance(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """How far outputs are from the wanted ones, as a part of their size; the worst of all outputs."""
    parts = []
    for name, right in wanted.items():
        size = float(np.linalg.norm(right.astype(np.float64)))
        parts.append(float(np.linalg.norm(found[name].astype(np.float64) - right)) / size if size else 0.0)
    return max(parts, default=0.0)
