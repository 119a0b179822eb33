"""Chunks, manifests and signed documents over MQTT: cut into pieces, asked for by a bitmap of what is missing.

    Want (device -> manager): name, bitmap, window     Piece (manager -> device): header, line feed, bytes

I/O: none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shared.errors import BadInputError
from shared.messages import MAX_PAYLOAD_BYTES, Piece

PIECE_BYTES: Final = 64 * 1024
#: Pieces that one `Want` may ask for: 1 MiB, a whole chunk.
MAX_WINDOW: Final = 16
MAX_PIECES: Final = 128
_BREAK: Final = b"\n"


def count_of(size_bytes: int) -> int:
    """Pieces of something of this size."""
    return -(-size_bytes // PIECE_BYTES)


def encode(header: Piece, data: bytes) -> bytes:
    """The payload."""
    return header.to_bytes() + _BREAK + data


def decode(payload: bytes) -> tuple[Piece, bytes]:
    """Inverse of `encode`.

    Raises:
        BadInputError: not a piece, or one whose numbers do not fit.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadInputError(f"a piece of {len(payload)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    head, _, data = payload.partition(_BREAK)
    piece = Piece.parse(head)
    if piece.size_bytes == 0:
        return piece, b""
    if piece.index >= count_of(piece.size_bytes) or len(data) != _length(piece.index, piece.size_bytes):
        raise BadInputError(f"piece {piece.index} of {piece.size_bytes} bytes has {len(data)} bytes")
    return piece, data


def cut(data: bytes, wanted: list[int], *, transfer: str) -> Iterator[bytes]:
    """The payloads of the pieces `wanted` of `data`, as far as there are such."""
    for index in wanted:
        if index < count_of(len(data)):
            header = Piece(transfer=transfer, index=index, size_bytes=len(data))
            yield encode(header, data[index * PIECE_BYTES : (index + 1) * PIECE_BYTES])


def _length(index: int, size_bytes: int) -> int:
    return min(PIECE_BYTES, size_bytes - index * PIECE_BYTES)


def bitmap(indices: list[int]) -> str:
    """Hexadecimal; bit k counted from the lowest is piece k."""
    return f"{sum(1 << index for index in indices):x}"


def indices(text: str, limit: int) -> list[int]:
    """The first `limit` pieces of a bitmap.

    Raises:
        BadInputError: not a bitmap.
    """
    try:
        bits = int(text, 16)
    except ValueError:
        raise BadInputError("not a bitmap of pieces") from None
    return [index for index in range(MAX_PIECES) if bits >> index & 1][:limit]


@dataclass(slots=True)
class Whole:
    """Pieces that have arrived of one thing of at most `limit_bytes`."""

    limit_bytes: int
    size_bytes: int | None = None
    parts: dict[int, bytes] = field(default_factory=dict)

    def add(self, piece: Piece, data: bytes) -> bool:
        """True if it is news. A piece of a thing of another size begins anew: the thing has changed.

        Raises:
            BadInputError: it would become larger than allowed.
        """
        if piece.size_bytes > self.limit_bytes:
            raise BadInputError(f"{piece.size_bytes} bytes are offered, {self.limit_bytes} are allowed")
        if piece.size_bytes != self.size_bytes:
            self.size_bytes, self.parts = piece.size_bytes, {}
        fresh = piece.index not in self.parts
        self.parts[piece.index] = data
        return fresh

    @property
    def missing(self) -> list[int]:
        """Pieces still to come; before the first one has come, as many as there can be."""
        count = count_of(self.limit_bytes if self.size_bytes is None else self.size_bytes)
        return [index for index in range(min(count, MAX_PIECES)) if index not in self.parts]

    @property
    def complete(self) -> bool:
        """Whether `data` is all of it."""
        return self.size_bytes is not None and not self.missing

    @property
    def data(self) -> bytes:
        """What has arrived, in order."""
        return b"".join(self.parts[index] for index in sorted(self.parts))
