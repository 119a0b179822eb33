"""Which tensor of the old file each tensor of the new one comes from.

By content anywhere, else by name, else by shape: the nearest one that nobody else took.

I/O: none.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from shared.delta import numbers
from shared.delta.split import WIDTH, Kind
from shared.identifiers import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.delta.numbers import Array
    from shared.delta.split import Tensor

_SAMPLE: Final = 512
_CANDIDATES: Final = 64  # tensors of one shape that are looked at
#: Kinds that a prediction can lead from and to.
_CONVERTS: Final = frozenset({Kind.FP32, Kind.FP16, Kind.BF16})


def pair(
    old: memoryview, olds: Sequence[Tensor], new: memoryview, news: Sequence[Tensor]
) -> tuple[list[int | None], list[bool]]:
    """For each new tensor the number of its original, or None; beside it whether all bytes are equal."""
    by_content = {_content(old, tensor): number for number, tensor in reversed(list(enumerate(olds)))}
    found: list[int | None] = [by_content.get(_content(new, tensor)) for tensor in news]
    same = [number is not None for number in found]
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, tensor in enumerate(olds):
        by_name[tensor.name].append(number)
    taken = {number for number in found if number is not None}
    for place, tensor in enumerate(news):
        if found[place] is None:
            named = [n for n in by_name.get(tensor.name, ()) if _fits(olds[n], tensor) and n not in taken]
            if named:
                found[place] = named[0]
                taken.add(named[0])
    for place, tensor in enumerate(news):
        if found[place] is None:
            like = [n for n, each in enumerate(olds) if n not in taken and _fits(each, tensor)][:_CANDIDATES]
            if like:
                found[place] = min(like, key=lambda n: _distance(old, olds[n], new, tensor))
                taken.add(found[place])  # type: ignore[arg-type]  # a number by now
    return found, same


def _content(data: memoryview, tensor: Tensor) -> tuple[int, str]:
    return tensor.size_bytes, sha256(data[tensor.start : tensor.end])


def _fits(old: Tensor, new: Tensor) -> bool:
    if old.kind is new.kind:
        return old.size_bytes == new.size_bytes
    return {old.kind, new.kind} <= _CONVERTS and old.count == new.count


def _distance(old: memoryview, before: Tensor, new: memoryview, after: Tensor) -> float:
    step = max(1, after.count // _SAMPLE)
    a, b = _sampled(old, before, step), _sampled(new, after, step)
    if Kind.BYTES in (before.kind, after.kind):
        return float(np.mean(a != b))
    with np.errstate(all="ignore"):
        return float(np.mean(np.log2(1 + np.abs(np.nan_to_num(a) - np.nan_to_num(b)) * 2.0**20)))


def _sampled(data: memoryview, tensor: Tensor, step: int) -> Array:
    pattern = numbers.bits(data[tensor.start : tensor.start + tensor.count * WIDTH[tensor.kind]], tensor.kind)
    return numbers.values(pattern[::step], tensor.kind)
