"""The front as the gRPC door asks it: HTTP/1.1 over its Unix socket, from several threads, one connection each.

A request that the front cannot have read whole is asked once more, for the front may just have been replaced.

I/O: network, clock.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 64 * 1024
_JOIN_BYTES: Final = 64 * 1024  # up to here one write is cheaper than several
_KEPT: Final = 32  # connections that wait for the next request


class FrontGoneError(Exception):
    """The front does not answer, or ended while it had the request."""


class AbandonedError(Exception):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: memoryview
    json_bytes: int | None  # None: all of the body


class Asking:
    """One request under way. Another thread may abandon it: the front then sees its client leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self.abandoned = False

    def abandon(self) -> None:
        with self._lock:
            self.abandoned = True
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def hold(self, connection: socket.socket | None) -> None:
        """From now on `connection` (None: no more) is the one to cut.

        Raises:
            AbandonedError: it is too late.
        """
        with self._lock:
            self._connection = connection
            if self.abandoned and connection is not None:
                raise AbandonedError


class _UnreadError(Exception):
    """The front ended before it had read the whole request."""


class Front:
    """Connections to the front. Any thread may ask."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self._path = str(path)
        self._timeout_seconds = timeout_seconds
        self._idle: deque[socket.socket] = deque()

    def ask(
        self,
        path: str,
        body: Sequence[bytes] | None = None,
        *,
        headers: Mapping[str, str | int] | None = None,
        asking: Asking | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """The answer to a POST of `body` in pieces, or to a GET (None).

        Raises:
            FrontGoneError: no answer within the time, or the connection was cut; the request may have been carried out.
            AbandonedError: `asking` was abandoned.
        """
        asking = asking or Asking()
        message = _message(path, body, headers or {})
        limit = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        with contextlib.suppress(_UnreadError):
            return self._try(message, asking, limit)
        try:
            return self._try(message, asking, limit)
        except _UnreadError:
            raise FrontGoneError("the endpoint is being restarted; ask again") from None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _try(self, message: Sequence[bytes], asking: Asking, limit: float) -> Answer:
        connection = self._take()
        try:
            asking.hold(connection)
            answer, keep = _exchange(connection, message, time.monotonic() + limit)
        except (OSError, FrontGoneError, AbandonedError, _UnreadError) as error:
            asking.hold(None)
            connection.close()
            if asking.abandoned:
                raise AbandonedError from None
            if isinstance(error, TimeoutError):
                raise FrontGoneError("the endpoint did not answer in time") from None
            if isinstance(error, OSError):
                raise FrontGoneError(f"the endpoint cannot be reached: {error.strerror or error}") from None
            raise
        asking.hold(None)
        if keep and len(self._idle) < _KEPT and not asking.abandoned:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _take(self) -> socket.socket:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if _is_quiet(connection):
                    return connection
                connection.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout_seconds)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise FrontGoneError(f"the endpoint cannot be reached: {error.strerror or error}") from None
        return connection


def _is_quiet(connection: socket.socket) -> bool:
    """Whether the front still holds the other end and has said nothing unasked."""
    connection.setblocking(False)  # with a time limit it would wait
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _message(path: str, body: Sequence[bytes] | None, headers: Mapping[str, str | int]) -> Sequence[bytes]:
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: localhost"]
    if body is not None:
        lines.append(f"Content-Length: {sum(map(len, body))}")
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    pieces = ["\r\n".join([*lines, "", ""]).encode("ascii"), *(body or ())]
    return [b"".join(pieces)] if sum(map(len, pieces)) <= _JOIN_BYTES else pieces


def _exchange(connection: socket.socket, message: Sequence[bytes], deadline: float) -> tuple[Answer, bool]:
    """The answer, and whether the connection may be used again."""
    try:
        for piece in message:
            connection.settimeout(_left(deadline))
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        raise _UnreadError from None
    connection.settimeout(_left(deadline))
    try:
        data = connection.recv(_HEAD_BYTES)
    except ConnectionResetError:  # a Unix socket says this only when the other end was closed with bytes unread
        raise _UnreadError from None
    while (end := data.find(b"\r\n\r\n")) < 0:
        connection.settimeout(_left(deadline))
        more = connection.recv(_HEAD_BYTES)
        if not more or len(data) > _HEAD_BYTES:
            raise FrontGoneError("the endpoint was restarted while it had the request; ask again")
        data += more
    status, length, json_bytes, keep = _head(data[:end])
    return Answer(status, _body(connection, data[end + 4 :], length, deadline), json_bytes), keep


def _head(data: bytes) -> tuple[int, int, int | None, bool]:
    first, *lines = data.decode("latin-1").lower().split("\r\n")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    json_bytes = headers.get("inference-header-content-length")
    keep = headers.get("connection") != "close"
    return int(first.split(" ")[1]), int(headers["content-length"]), (json_bytes and int(json_bytes)) or None, keep


def _body(connection: socket.socket, begun: bytes, length: int, deadline: float) -> memoryview:
    if len(begun) >= length:
        return memoryview(begun)[:length]
    whole = memoryview(bytearray(length))
    whole[: len(begun)] = begun
    at = len(begun)
    while at < length:
        connection.settimeout(_left(deadline))
        count = connection.recv_into(whole[at:])
        if not count:
            raise FrontGoneError("the endpoint was restarted while it answered; ask again")
        at += count
    return whole


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
