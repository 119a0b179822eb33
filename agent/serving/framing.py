"""HTTP/1.1 of one connection: bytes become heads, pieces of bodies and ends; answers become bytes.

Any cut of the same bytes gives the same events. A body of known length need not pass through here: the
connection may receive it where it belongs and say so with `skip`.

I/O: none.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import Final

MAX_HEAD: Final = 32 * 1024
_MAX_CHUNK_LINE: Final = 1024
_KNOWN_HEADS: Final = 256  # that are remembered,
_SHORT_HEAD: Final = 2048  # each at most so long
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class FramingError(Exception):
    """The bytes are not HTTP that we take; answer `status` and close."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request line and its headers, names in lower case."""

    method: str
    path: str  # without the query
    headers: Mapping[str, str]
    keep_alive: bool
    length: int | None  # of the body; None: chunked

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the body."""

    piece: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The request is complete."""


Event = Head | Data | End


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILER = auto()


class Stream:
    """The receiving side of one connection. After an End, feed nothing until the answer is out."""

    def __init__(self) -> None:
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._left = 0

    @property
    def missing(self) -> int:
        """Bytes of a body of known length that are still to come and may be received elsewhere."""
        return self._left if self._state is _State.LENGTH and not self._buffer else 0

    @property
    def midway(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._state is not _State.HEAD or bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """More bytes from the wire."""
        self._buffer += data

    def skip(self, count: int) -> bool:
        """`count` of the missing bytes were received elsewhere. True when that was the last of the request."""
        self._left -= count
        if self._left == 0:
            self._state = _State.HEAD
        return self._left == 0

    def events(self) -> Iterator[Event]:
        """What the bytes so far say, up to the end of one request.

        Raises:
            FramingError: they are not acceptable HTTP.
        """
        while (event := self._next()) is not None:
            yield event
            if isinstance(event, End):
                return

    def _next(self) -> Event | None:
        while True:
            match self._state:
                case _State.HEAD:
                    return self._head()
                case _State.LENGTH | _State.CHUNK_DATA:
                    if self._left == 0:
                        if self._state is _State.LENGTH:
                            self._state = _State.HEAD
                            return End()
                        self._state = _State.CHUNK_END
                        continue
                    return self._data()
                case _State.CHUNK_SIZE:
                    line = self._line()
                    if line is None:
                        return None
                    self._left = _chunk_size(line)
                    self._state = _State.CHUNK_DATA if self._left else _State.TRAILER
                case _State.CHUNK_END:
                    line = self._line()
                    if line is None:
                        return None
                    if line:
                        raise FramingError(400, "a chunk is longer than it says")
                    self._state = _State.CHUNK_SIZE
                case _State.TRAILER:
                    line = self._line()
                    if line is None:
                        return None
                    if not line:
                        self._state = _State.HEAD
                        return End()

    def _head(self) -> Head | None:
        while self._buffer[:2] == b"\r\n":  # allowed before a request line
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
            raise FramingError(431, f"the request head is longer than {MAX_HEAD} bytes")
        if end < 0:
            return None
        head = known_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._left = head.length or 0
        self._state = _State.CHUNK_SIZE if head.length is None else _State.LENGTH
        return head

    def _data(self) -> Data | None:
        if not self._buffer:
            return None
        piece = bytes(memoryview(self._buffer)[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        return Data(piece)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > _MAX_CHUNK_LINE or (end < 0 and len(self._buffer) > _MAX_CHUNK_LINE):
            raise FramingError(400, "a chunk line is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def known_head(data: bytes) -> Head:
    """`parse_head`, remembered where it is short: a client sends the same head again and again."""
    return _remembered(data) if len(data) <= _SHORT_HEAD else parse_head(data)


@lru_cache(maxsize=_KNOWN_HEADS)
def _remembered(data: bytes) -> Head:
    return parse_head(data)


def parse_head(data: bytes) -> Head:
    """The head in `data`, which ends before its empty line.

    Raises:
        FramingError: malformed, or a version or transfer coding that we do not speak.
    """
    lines = data.split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[0] or not _TOKEN.issuperset(parts[0]):
        raise FramingError(400, "malformed request line")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise FramingError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    headers = _headers(lines[1:])
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (parts[2] == b"HTTP/1.1" or "keep-alive" in connection)
    target = parts[1].decode("latin-1")
    return Head(parts[0].decode(), target.partition("?")[0], headers, keep_alive, _length(headers))


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise FramingError(400, "malformed header line")
        key = name.decode().lower()
        text = value.strip(b" \t").decode("latin-1")
        if key in headers and key in ("content-length", "transfer-encoding", "inference-header-content-length"):
            raise FramingError(400, f"header {key} is repeated")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _length(headers: Mapping[str, str]) -> int | None:
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked" or "content-length" in headers:
            raise FramingError(400, "only transfer coding chunked is understood, without a content length")
        return None
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise FramingError(400, "malformed content length")
    return int(text)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > 15 or not set(digits) <= set(b"0123456789abcdefABCDEF"):
        raise FramingError(400, "malformed chunk size")
    return int(digits, 16)


def answer(
    status: int,
    body: bytes | memoryview,
    *,
    keep_alive: bool,
    content_type: str = "application/json",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """A whole answer."""
    more = tuple(extra.items()) if extra else ()
    return b"".join([_answer_head(status, len(body), keep_alive, content_type, more), body])


@lru_cache(maxsize=_KNOWN_HEADS)
def _answer_head(
    status: int, length: int, keep_alive: bool, content_type: str, extra: tuple[tuple[str, str], ...]
) -> bytes:
    lines = [
        (
            f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n"
        )
    ]
    lines.extend(f"{name}: {value}\r\n" for name, value in extra)
    lines.append("\r\n" if keep_alive else "Connection: close\r\n\r\n")
    return "".join(lines).encode("latin-1")


def inflate(data: bytes | bytearray, coding: str, limit: int) -> bytes:
    """A body that came with `Content-Encoding: coding` (gzip or deflate), at most `limit` bytes of it.

    Raises:
        FramingError: another coding, damaged, or larger.
    """
    windows = {"gzip": 31, "deflate": 15}
    if coding not in windows:
        raise FramingError(415, f"content coding {coding} is not understood; gzip and deflate are")
    machine = zlib.decompressobj(windows[coding])
    try:
        plain = machine.decompress(data, limit + 1)
    except zlib.error as error:
        raise FramingError(400, f"the compressed body is damaged: {error}") from None
    if len(plain) > limit or machine.unconsumed_tail:
        raise FramingError(413, f"the body is larger than {limit} bytes")
    if not machine.eof:
        raise FramingError(400, "the compressed body ends early")
    return plain


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
