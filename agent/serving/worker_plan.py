"""What was learnt from a request's JSON part, kept by its bytes: clients send the same head again and again.

A plan is made by the codec from a request that it has read and checked in full; it stands for requests whose JSON
part is the same to the byte (but for a leading id) and whose binary part is as long. Python 3.10 syntax: also runs
under the worker's interpreter.

I/O: none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Optional, TypeVar

import numpy as np

_KEPT = 64  # heads; then all are forgotten
_LONGEST = 4096  # bytes of a head that is worth keeping
_HEADS = 64  # of answers, for each plan
_ID = b'{"id":"'

T = TypeVar("T")


class Kept(Generic[T]):
    """A bounded memory by bytes."""

    def __init__(self) -> None:
        self._found: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: bytes) -> Optional[T]:
        return self._found.get(key)

    def keep(self, key: bytes, value: T) -> None:
        if len(key) > _LONGEST:
            return
        if len(self._found) >= _KEPT:
            self._found.clear()
        self._found[key] = value


class Part:
    """A binary input: its values in the binary part."""

    def __init__(self, name: str, dtype: np.dtype, shape: Sequence[int], start: int) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = tuple(shape)
        self.start = start
        self.count = 1
        for size in shape:
            self.count *= size


class Plan:
    """How to read requests with this JSON part, and how to begin the answers to them."""

    def __init__(self, parts: Sequence[Part], tail_bytes: int, wanted: Sequence[Any]) -> None:
        self.parts = parts
        self.tail_bytes = tail_bytes
        self.wanted = wanted
        self.heads: dict[object, bytes] = {}  # shapes of the outputs -> JSON part of the answer without an id

    def read(self, tail: memoryview) -> dict[str, np.ndarray]:
        """Arrays on `tail`, which has `tail_bytes` bytes."""
        found: dict[str, np.ndarray] = {}
        for part in self.parts:
            array = np.frombuffer(tail, part.dtype, part.count, part.start).reshape(part.shape)
            found[part.name] = array if array.flags.aligned else array.copy()
        return found

    def head(self, shapes: object) -> Optional[bytes]:
        return self.heads.get(shapes)

    def keep_head(self, shapes: object, head: bytes) -> None:
        if len(self.heads) >= _HEADS:
            self.heads.clear()
        self.heads[shapes] = head


def without_id(head: bytes) -> tuple[str, bytes]:
    """A leading plain id of a JSON part, and the part without it; no id where it is not as simple as that."""
    if not head.startswith(_ID):
        return "", head
    end = head.find(b'"', len(_ID))
    raw = head[len(_ID) : end]
    if end < 0 or head[end + 1 : end + 2] != b"," or b"\\" in raw or not raw.isascii():
        return "", head
    text = raw.decode()
    return (text, b"{" + head[end + 2 :]) if text.isprintable() else ("", head)


def with_id(request_id: str, head: bytes) -> bytes:
    """A JSON object with this id before its other members."""
    return b'{"id":' + json.dumps(request_id).encode() + b"," + head[1:] if request_id else head


def plan_of(inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int], wanted: Sequence[Any]) -> Optional[Plan]:
    """A plan for requests like one whose inputs, in their order, took `sizes` bytes of the binary part.

    None where an input came as JSON or as text, or an output is wanted so.
    """
    if list(sizes) != list(inputs) or not all(entry.binary and not entry.classes for entry in wanted):
        return None
    parts: list[Part] = []
    at = 0
    for name, array in inputs.items():
        if array.dtype.hasobject or array.nbytes != sizes[name] or not array.size:
            return None
        parts.append(Part(name, array.dtype, array.shape, at))
        at += array.nbytes
    return Plan(parts, at, wanted)
