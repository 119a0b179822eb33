"""The first packet of an MQTT connection, as far as it must be known before the client is let in.

I/O: none.
"""

from dataclasses import dataclass, field
from typing import Final

from shared.errors import BadInputError

MAX_CONNECT_BYTES: Final = 128 * 1024  # a last will of 96 KiB fits
_CONNECT: Final = 0x10
_WILL, _PASSWORD, _USERNAME = 0x04, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Connect:
    """`level` 4 is MQTT 3.1.1; of other levels nothing else is read."""

    level: int
    client_id: str = ""
    clean: bool = True
    will_topic: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def remaining_length(head: bytes) -> int | None:
    """Bytes that follow `head` (type and length bytes so far); None while the length is not complete.

    Raises:
        BadInputError: not a CONNECT, or one that is too long.
    """
    if head[0] != _CONNECT:
        raise BadInputError("the first packet is not CONNECT")
    length = 0
    for place, byte in enumerate(head[1:]):
        length |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            if length > MAX_CONNECT_BYTES:
                raise BadInputError(f"CONNECT of {length} bytes; the limit is {MAX_CONNECT_BYTES}")
            return length
    if len(head) > 4:
        raise BadInputError("CONNECT with a malformed length")
    return None


def parse(body: bytes) -> Connect:
    """The packet whose bytes after the length are `body`.

    Raises:
        BadInputError: malformed.
    """
    rest = _Rest(body)
    if rest.field() != b"MQTT":
        raise BadInputError("CONNECT with another protocol name")
    level, flags, _keep_alive = rest.byte(), rest.byte(), rest.take(2)
    if level != 4:
        return Connect(level)
    client_id = rest.text()
    will_topic = rest.text() if flags & _WILL else None
    if flags & _WILL:
        rest.field()
    username = rest.text() if flags & _USERNAME else None
    password = rest.text() if flags & _PASSWORD else None
    if rest.left:
        raise BadInputError("CONNECT with bytes after its end")
    return Connect(level, client_id, bool(flags & 0x02), will_topic, username, password)


class _Rest:
    """What is left to read of a packet."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def left(self) -> int:
        return len(self._data)

    def take(self, count: int) -> bytes:
        if len(self._data) < count:
            raise BadInputError("CONNECT ends too early")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def field(self) -> bytes:
        return self.take(int.from_bytes(self.take(2), "big"))

    def text(self) -> str:
        try:
            return self.field().decode()
        except UnicodeDecodeError:
            raise BadInputError("CONNECT with text that is not UTF-8") from None
