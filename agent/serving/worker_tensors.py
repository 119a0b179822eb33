"""Values of tensors as clients send and read them: JSON lists, bytes, length-prefixed text, best classes.

Texts of errors are Triton's, because clients match on them. Python 3.10 syntax: runs under the worker's interpreter.

I/O: none.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

_WORTH_A_VIEW = 4096  # bytes: below it a copy is cheaper


class BadRequestError(Exception):
    """What the client sent cannot be answered; the text is for the client."""


def from_json(name: str, spec: Any, shape: list[int], entry: dict[str, Any]) -> np.ndarray:
    data = entry.get("data")
    if not isinstance(data, list):
        raise BadRequestError(f"Unable to parse 'data' of input '{name}': attempt to access JSON non-array as array")
    if spec.datatype == "FP16":
        raise BadRequestError(
            f"sending FP16 data via JSON is not supported. Please use the binary data format for input '{name}'"
        )
    try:
        array = _flat_text(data) if spec.datatype == "BYTES" else np.array(data)
    except (ValueError, OverflowError, RecursionError):
        raise BadRequestError("Unable to parse 'data': Shape does not match true shape of 'data' field") from None
    if array.size != elements(shape):
        raise BadRequestError("Unable to parse 'data': Shape does not match true shape of 'data' field")
    if array.size and spec.datatype != "BYTES" and not _converts(array, spec.dtype):
        raise BadRequestError(f"Unable to parse 'data' of input '{name}': values are not all {spec.datatype}")
    return array.astype(spec.dtype).reshape(shape)


def _converts(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether JSON numbers of this kind can be what the model takes without losing their meaning."""
    if dtype.kind == "f":
        return array.dtype.kind in "fiu"
    if dtype.kind == "b":
        return bool(array.dtype.kind == "b" or (array.dtype.kind in "iu" and np.isin(array, (0, 1)).all()))
    if array.dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return bool(int(array.min()) >= limits.min and int(array.max()) <= limits.max)


def _flat_text(data: Any) -> np.ndarray:
    items: list[str] = []
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, str):
            items.append(item)
        else:
            raise ValueError("not text")
    return np.array(items, dtype=np.object_)


def unpacked_text(name: str, data: memoryview, count: int) -> np.ndarray:
    items: list[str] = []
    at = 0
    while at + 4 <= len(data) and len(items) < count:
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            break
        items.append(bytes(data[at : at + length]).decode("utf-8", "surrogateescape"))
        at += length
    if len(items) != count or at != len(data):
        raise BadRequestError(f"expected {count} string elements for inference input '{name}', got {len(items)}")
    return np.array(items, dtype=np.object_)


def raw_bytes(array: np.ndarray) -> Any:
    """The values as a buffer of bytes, without a copy where it is large."""
    if array.nbytes < _WORTH_A_VIEW or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def packed_text(array: np.ndarray) -> bytes:
    parts: list[bytes] = []
    for item in array.ravel():
        raw = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")
        parts.append(struct.pack("<I", len(raw)) + raw)
    return b"".join(parts)


def best_classes(array: np.ndarray, count: int) -> np.ndarray:
    """`score:index` of the best classes of each row."""
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    best = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    text = [[f"{rows[row, index]:f}:{index}" for index in line] for row, line in enumerate(best)]
    return np.array(text, dtype=np.object_).reshape(best.shape if array.ndim > 1 else best.shape[1:])


def plain_text(item: Any) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
