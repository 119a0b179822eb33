"""How releases are told to people.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.manifest import Tensor
    from shared.onnx_scan import ModelFacts


def described(facts: ModelFacts, size_bytes: int) -> str:
    """One line on a model: `ONNX opset 17, image[any,8,8] FP32 -> scores[any,10] FP32, 9.9 kB`."""
    sides = f"{tensors(facts.inputs)} -> {tensors(facts.outputs)}"
    return f"ONNX opset {facts.opset['ai.onnx']}, {sides}, {readable(size_bytes)}"


def tensors(many: Iterable[Tensor]) -> str:
    """`image[any,8,8] FP32, mask[any] BOOL`."""
    return ", ".join(f"{each.name}[{','.join(map(_size, each.shape))}] {each.datatype}" for each in many)


def _size(size: int) -> str:
    return "any" if size < 0 else str(size)


def next_version(version: str) -> str:
    """The version with its last number one higher, without a pre-release part: `1.4.0` -> `1.4.1`."""
    *head, last = version.partition("-")[0].split(".")
    return ".".join([*head, str(int(last) + 1)])


def readable(size_bytes: float) -> str:
    """`9.9 kB`, `11.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
