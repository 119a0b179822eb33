"""Weights that an ONNX file keeps in other files, taken into it: devices load one file, and deltas know its tensors.

Everything else stays as it was, byte for byte; a file without such weights comes back as it is.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.delta.split import CHILDREN, MAX_DEPTH
from shared.onnx_wire import LENGTH, OnnxError, Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.onnx_wire import Field

#: Protobuf messages, and so model files, hold no more.
MAX_FILE_BYTES: Final = (1 << 31) - 1
_FARTHEST: Final = 1 << 62  # in a file
_EXTERNAL: Final = 1  # TensorProto.data_location
_ENTRY, _LOCATION, _RAW = 13, 14, 9  # fields of TensorProto


@dataclass(frozen=True, slots=True)
class Place:
    """Where the weights of one tensor lie: `size_bytes` None is all that follows."""

    file: str
    start: int
    size_bytes: int | None


def inlined(data: bytes, bring: Callable[[Place], bytes]) -> bytes:
    """The model in `data` with all its weights; `bring` reads those that lie elsewhere.

    Raises:
        OnnxError: it names them in a way that means nothing, or is too large for one file.
    """
    work = _Inlining(data, bring)
    try:
        found = work.message("model", 0, len(data), 0)
    except OnnxError:
        if work.brought:
            raise
        return data  # no model, or one that says nothing of other files: who reads it next will tell
    return data if found is None else found


class _Inlining:
    def __init__(self, data: bytes, bring: Callable[[Place], bytes]) -> None:
        self._view = memoryview(data)
        self._reader = Reader(self._view)
        self._bring = bring
        self._left = MAX_FILE_BYTES - len(data)
        self.brought = False

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes | None:
        """The message anew; None where it stays as it is."""
        if depth > MAX_DEPTH:
            raise OnnxError("nested too deep")
        parts: list[bytes | memoryview] = []
        kept = before = start
        for field in self._reader.fields(start, end):
            made = self._child(CHILDREN[kind].get(field.number), field, depth)
            if made is not None:
                parts += [self._view[kept:before], _varint(field.number << 3 | LENGTH), _varint(len(made)), made]
                kept = field.end
            before = field.end
        return b"".join([*parts, self._view[kept:end]]) if parts else None

    def _child(self, kind: str | None, field: Field, depth: int) -> bytes | None:
        if kind is None or field.wire != LENGTH:
            return None
        if kind == "tensor":
            return self._tensor(field)
        return self.message(kind, field.start, field.end, depth + 1)

    def _tensor(self, tensor: Field) -> bytes | None:
        fields = list(self._reader.fields(tensor.start, tensor.end))
        if not any(field.number == _LOCATION and field.value == _EXTERNAL for field in fields):
            return None
        self.brought = True
        if any(field.number == _RAW for field in fields):
            raise OnnxError("a tensor with weights both inside and outside the file")
        place = self._place(fields)
        self._take(place.size_bytes or 0)
        weights = self._bring(place)
        self._take(len(weights) - (place.size_bytes or 0))
        edges = [tensor.start, *(field.end for field in fields)]
        told = zip(fields, edges, edges[1:], strict=False)
        kept = [self._view[start:end] for field, start, end in told if field.number not in (_ENTRY, _LOCATION)]
        return b"".join([*kept, _varint(_RAW << 3 | LENGTH), _varint(len(weights)), weights])

    def _take(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise OnnxError(
                f"a model of more than {MAX_FILE_BYTES} bytes with the weights outside the file",
                remedy="publish it with 16-bit or 8-bit weights: one ONNX file holds less than 2 GiB",
            )

    def _place(self, fields: list[Field]) -> Place:
        said: dict[str, str] = {}
        for entry in fields:
            if entry.number == _ENTRY and entry.wire == LENGTH:
                parts = self._reader.fields(entry.start, entry.end)
                texts = {part.number: self._reader.text(part, "external data") for part in parts}
                said[texts.get(1, "")] = texts.get(2, "")
        try:
            size = int(said["length"]) if "length" in said else None
            place = Place(said["location"], int(said.get("offset", "0")), size)
        except (KeyError, ValueError):
            raise OnnxError(f"weights outside the file without a place that can be read: {said}") from None
        if not 0 <= place.start < _FARTHEST or (place.size_bytes or 0) < 0 or "\0" in place.file:
            raise OnnxError(f"weights outside the file at a place that cannot be: {said}")
        return place


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
