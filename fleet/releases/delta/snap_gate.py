"""Snap a model to the last release as coarsely as its answers allow, or not at all.

A snapped model may be no further from the trained one than rounding its weights to 16 bits would take it, on the
reference data, and must be right as often. Steps become finer until that holds.

I/O: process.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fleet.releases import reference_run
from fleet.releases.delta import snapping
from shared.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleet.releases.delta.fitting import Fit
    from fleet.releases.reference_run import Arrays
    from shared.delta.numbers import Array
    from shared.manifest import Tensor

_GOLDEN_ROWS: Final = 256  # that outputs are compared on


class SnapError(RefusedError):
    """The model cannot be snapped without changing its answers."""

    code = "E_SNAP"
    default_remedy = "publish without --snap"


@dataclass(frozen=True, slots=True)
class Snapped:
    """The model to publish, and what snapping did to it: this goes into the manifest's metrics."""

    onnx: bytes
    grids: Mapping[int, Fit]
    metrics: Mapping[str, float]


def snapped(
    old: bytes,
    new: bytes,
    inputs: Arrays,
    labels: Array | None,
    *,
    declared: Sequence[Tensor],
    say: Callable[[str], None] = lambda _: None,
) -> Snapped:
    """`new`, its change since `old` rounded to the coarsest grid that passes.

    Raises:
        SnapError: no grid passes, or there is nothing to snap.
        ModelRunError: a model does not run.
    """

    def run(onnx: bytes) -> tuple[dict[str, Array], float]:
        found = reference_run.run(onnx, inputs, labels, declared=declared, golden_rows=_GOLDEN_ROWS)
        with np.load(io.BytesIO(found.golden)) as arrays:
            outputs = {name: arrays[name] for name in arrays.files if name.startswith("output.")}
        return outputs, found.accuracy or 0.0

    rounded = snapping.halved(new)
    if rounded == new:
        raise SnapError("only weights of 32 bits can be snapped, and this model has none that 16 bits do not hold")
    wanted, right = run(new)
    allowed = snapping.distance(run(rounded)[0], wanted)
    planned = snapping.plan(old, new)
    if not planned:
        raise SnapError("the model has no tensor in common with the last release, or no change to it")
    away = accuracy = 0.0
    for factor in snapping.FACTORS:
        made = snapping.snap(old, new, planned, factor)
        outputs, accuracy = run(made.data)
        away = snapping.distance(outputs, wanted)
        say(f"  snapped to {factor:g}: outputs {away:.2e} away (16 bits: {allowed:.2e}), accuracy {accuracy:.1%}")
        if away <= allowed and accuracy >= right:
            lost = {"snap_distance": away, "snap_distance_fp16": allowed, "snap_accuracy_lost": right - accuracy}
            return Snapped(made.data, made.grids, {**lost, "snap_factor": factor})
    raise SnapError(
        f"even the finest grid moves the outputs by {away:.2e} of their size, or costs accuracy"
        f" ({right:.1%} before, {accuracy:.1%} after); 16-bit weights would move them by {allowed:.2e}"
    )
