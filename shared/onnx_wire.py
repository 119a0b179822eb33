"""Protobuf's wire format, as far as ONNX files need it, with bounds on everything.

Any bytes give fields or an `OnnxError`; nothing is copied but names.

I/O: none.
"""

from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple, Protocol, overload

from shared.errors import RefusedError

MAX_FIELDS: Final = 4_000_000
MAX_TEXT_BYTES: Final = 4096
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class OnnxError(RefusedError):
    """Not an ONNX file that may be loaded."""

    code: ClassVar[str] = "E_ONNX"
    default_remedy: ClassVar[str] = "export the model again as one self-contained ONNX file"


class Readable(Protocol):
    """Bytes that can be asked for by place; a memoryview is one."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, place: int, /) -> int: ...
    @overload
    def __getitem__(self, place: slice, /) -> bytes | memoryview: ...


class Field(NamedTuple):
    """One field: `value` of a varint, `[start, end)` of everything else."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class Reader:
    """Protobuf's wire format, with bounds on everything."""

    def __init__(self, data: Readable) -> None:
        self._data = data
        self._left = MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message in `[start, end)`."""
        place = start
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise OnnxError(f"more than {MAX_FIELDS} fields: not a model but a bomb")
            tag, place = self.varint(place, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise OnnxError(f"malformed protobuf at byte {place}: field number {number}")
            value = begin = 0
            match wire:
                case 0:
                    value, place = self.varint(place, end)
                case 2:
                    length, begin = self.varint(place, end)
                    place = begin + length
                case 1 | 5:
                    begin, place = place, place + (8 if wire == FIXED64 else 4)
                case _:
                    raise OnnxError(f"malformed protobuf at byte {place}: wire type {wire}")
            if place > end:
                raise OnnxError(f"cut off: a field at byte {begin} ends at {place}, after its message ({end})")
            yield Field(number, wire, value, begin, place)

    def varint(self, place: int, end: int) -> tuple[int, int]:
        """The number at `place`, and the place after it."""
        value = shift = 0
        while place < end and shift < 70:
            byte = self._data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place
            shift += 7
        raise OnnxError(f"malformed protobuf at byte {place}: a number that does not end")

    def text(self, found: Field, what: str) -> str:
        """A string of bounded length."""
        expect(found, LENGTH, what)
        if found.end - found.start > MAX_TEXT_BYTES:
            raise OnnxError(f"{what} of {found.end - found.start} bytes")
        try:
            return bytes(self._data[found.start : found.end]).decode()
        except UnicodeDecodeError:
            raise OnnxError(f"{what} is not UTF-8") from None

    def numbers(self, found: Field, what: str) -> Iterator[int]:
        """A repeated int64, packed or not."""
        if found.wire == VARINT:
            yield signed(found.value)
            return
        expect(found, LENGTH, what)
        place = found.start
        while place < found.end:
            value, place = self.varint(place, found.end)
            yield signed(value)


def expect(found: Field, wire: int, what: str) -> None:
    """Nothing, if the field has this wire type.

    Raises:
        OnnxError: it has another.
    """
    if found.wire != wire:
        raise OnnxError(f"{what} has wire type {found.wire} instead of {wire}: damaged, or not an ONNX file")


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
