"""Protobuf's wire format, as far as compact payloads need it: numbers, bytes, packed columns of numbers.

Readers skip fields that they do not know, as everywhere (ADR 6).

I/O: none.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

VARINT: Final = 0
BYTES: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # never written, skipped when read
_LONGEST: Final = 63  # bits of a number, in steps of seven


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field that holds one number; nothing for 0, which is what a missing field means."""
    return varint(field << 3 | VARINT) + varint(value) if value else b""


def text(field: int, value: bytes) -> bytes:
    """A field that holds bytes; nothing when there are none."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value if value else b""


def column(values: Iterable[int]) -> bytes:
    """Many numbers, one after the other."""
    return b"".join(map(varint, values))


def zigzag(value: int) -> int:
    """A number with a sign as one without: 0, -1, 1, -2 are 0, 1, 2, 3."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def unzigzag(value: int) -> int:
    """Inverse of `zigzag`."""
    return value >> 1 if not value & 1 else -((value + 1) >> 1)


class Fields:
    """The fields of one message by their number; of a repeated one the last.

    Raises:
        ValueError: malformed.
    """

    def __init__(self, data: bytes) -> None:
        self._found: Mapping[int, int | bytes] = dict(_read(data))

    def number(self, field: int) -> int:
        """0 when it is not there."""
        found = self._found.get(field, 0)
        if isinstance(found, bytes):
            raise ValueError(f"field {field} is not a number")
        return found

    def bytes(self, field: int) -> bytes:
        """Empty when it is not there."""
        found = self._found.get(field, b"")
        if isinstance(found, int):
            raise ValueError(f"field {field} is not bytes")
        return found

    def text(self, field: int) -> str:
        """Bytes that are UTF-8."""
        return self.bytes(field).decode()

    def names(self, field: int) -> list[str]:
        """Names with commas between."""
        joined = self.text(field)
        return joined.split(",") if joined else []

    def column(self, field: int) -> list[int]:
        """Numbers, packed."""
        data, place, found = self.bytes(field), 0, []
        while place < len(data):
            value, place = _varint(data, place)
            found.append(value)
        return found


def _read(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield field, value
            continue
        if wire == BYTES:
            size, place = _varint(data, place)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(data):
            raise ValueError(f"field {field} is cut off")
        yield field, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _LONGEST + 1, 7):
        if place >= len(data):
            raise ValueError("cut off within a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number that does not end")
