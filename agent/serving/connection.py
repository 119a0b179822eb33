"""One client's connection: receives a request (its body straight into the arena), hands it on, sends the answer.

One request at a time, as HTTP/1.1 answers in order; what a client sends ahead waits, bounded.

I/O: network, tasks, clock.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from agent.serving import documents, framing, routes
from agent.serving.arena import Arena
from agent.serving.worker_wire import ALIGNMENT, MAX_BODY

_SCRATCH_BYTES: Final = 256 * 1024
_MEMORY_BYTES: Final = 1024 * 1024  # body of anything but an inference
_WHOLE_BYTES: Final = 16 * 1024  # of a request that is taken in one piece
_FRESH_SECONDS: Final = 0.25  # from connecting to the first byte of the first request
_AHEAD_BYTES: Final = 256 * 1024  # that a client may send before it has its answer

# Filled and consumed within one call of the event loop, so all connections share it.
_scratch: Final = memoryview(bytearray(_SCRATCH_BYTES))


@dataclass(slots=True)
class Body:
    """Where the body of the present request goes."""

    slot: int | None = None  # in the arena
    offset: int = 0
    size: int = 0
    memory: bytearray = field(default_factory=bytearray)
    limit: int = _MEMORY_BYTES
    refused: tuple[int, str] | None = None  # it is read and dropped; this is the answer


class Owner(Protocol):
    """What a connection needs of the front."""

    arena: Arena
    leaving: bool  # each answer is the last of its connection

    def arrived(self, connection: "Connection", head: framing.Head, route: routes.Route, body: Body) -> None:
        """A request is complete. `connection.respond` must be called once, now or later."""

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one connection."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._stream = framing.Stream()
        self._head: framing.Head | None = None
        self._route: routes.Route | None = None
        self._body = Body()
        self._ahead = bytearray()
        self._answering = False
        self._pumping = False
        self._half_closed = False
        self._answered = False
        self.touched = time.monotonic()
        self.ticket: object | None = None  # the front's, of the request in work
        self.user: int | None = None  # the front's: who asks, once that was looked up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if not self._answering:
            self._give_back()
        self._owner.closed(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        missing = 0 if self._answering else self._stream.missing
        if missing and self._body.slot is not None:
            start = self._body.offset + self._body.size
            return self._owner.arena.request(self._body.slot)[start : start + missing]
        return _scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.touched = time.monotonic()
        if self._answering:
            self._ahead += _scratch[:nbytes]
            if len(self._ahead) > _AHEAD_BYTES and self._transport is not None:
                self._transport.pause_reading()
            return
        if self._body.slot is not None and self._stream.missing:
            self._body.size += nbytes
            if self._stream.skip(nbytes):
                self._complete()
            return
        if self._stream.midway or not self._take_whole(nbytes):
            self._stream.feed(_scratch[:nbytes])
            self._pump()

    @property
    def socket(self) -> socket.socket:
        """For questions about the other end."""
        if self._transport is None:
            raise RuntimeError("the connection is closed")
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def eof_received(self) -> bool:
        self._half_closed = True
        return self._answering  # a client that half-closes still gets its answer

    def stalled(self, now: float, limit: float) -> bool:
        """Whether a request was begun and nothing more of it came for `limit` seconds."""
        return self._stream.midway and not self._answering and now - self.touched > limit

    def engaged(self, now: float) -> bool:
        """Whether its client waits for an answer, or has just connected and will ask at once."""
        fresh = not self._answered and now - self.touched < _FRESH_SECONDS
        return self._answering or self._stream.midway or fresh

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def respond(
        self,
        status: int,
        body: bytes | memoryview,
        *,
        content_type: str = "application/json",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """The answer to the present request."""
        self._answering = False
        self._answered = True
        self.ticket = None
        head, self._head = self._head, None
        if self._transport is None or self._transport.is_closing():
            return
        keep_alive = head is not None and head.keep_alive and not self._half_closed and not self._owner.leaving
        data = framing.answer(status, body, keep_alive=keep_alive, content_type=content_type, extra=extra)
        if head is not None and head.method == "HEAD":
            data = data[: len(data) - len(body)]
        self._transport.write(data)
        if not keep_alive:
            self._transport.close()
            return
        if self._ahead:
            self._stream.feed(self._ahead)
            self._ahead.clear()
            self._transport.resume_reading()
        if self._stream.midway and not self._pumping:
            self._pump()

    def _take_whole(self, nbytes: int) -> bool:
        """Work off what came if it is exactly one short request, the usual case, without the stream."""
        if nbytes > _WHOLE_BYTES:
            return False
        data = bytes(_scratch[:nbytes])
        end = data.find(b"\r\n\r\n")
        if end <= 0 or data[:2] == b"\r\n":
            return False
        try:
            head = framing.known_head(data[:end])
            if head.length != nbytes - end - 4 or head.expects_continue:
                return False
            self._begin(head)
            self._store(data[end + 4 :])
            self._complete()
        except framing.FramingError as error:
            self._refuse(error.status, str(error))
        return True

    def _pump(self) -> None:
        """Work off what the stream has, request by request, until one must wait for its answer."""
        self._pumping = True
        try:
            again = True
            while again and not self._answering and self._transport is not None:
                again = False
                for event in self._stream.events():
                    again = self._take(event) or again
        except framing.FramingError as error:
            self._refuse(error.status, str(error))
        finally:
            self._pumping = False

    def _take(self, event: framing.Event) -> bool:
        match event:
            case framing.Head():
                self._begin(event)
            case framing.Data():
                self._store(event.piece)
            case framing.End():
                self._complete()
                return True
        return False

    def _begin(self, head: framing.Head) -> None:
        self._head = head
        self._body = Body()
        route = routes.find(head.method, head.path)
        if isinstance(route, routes.NoRoute):
            self._route, self._body.refused = None, (route.status, route.text)
        else:
            self._route = route
            self._place(head, route)
        if head.length is not None and head.length > max(self._body.limit, _MEMORY_BYTES):
            raise framing.FramingError(413, f"the body is larger than {self._body.limit} bytes")
        if head.expects_continue and head.length != 0 and self._transport is not None:
            self._transport.write(framing.CONTINUE)

    def _place(self, head: framing.Head, route: routes.Route) -> None:
        if route.call is not routes.Call.INFER:
            return
        self._body.limit = MAX_BODY
        length = head.headers.get("inference-header-content-length", "")
        if length.isascii() and length.isdigit() and len(length) < 10:
            self._body.offset = -int(length) % ALIGNMENT
        if head.headers.get("content-encoding", "identity") == "identity":
            self._body.slot = self._owner.arena.acquire()
            if self._body.slot is None:
                self._body.refused = (503, "all places for requests are taken; try again shortly")

    def _store(self, piece: bytes) -> None:
        body = self._body
        if body.refused is not None:
            return
        if body.size + len(piece) > body.limit:
            raise framing.FramingError(413, f"the body is larger than {body.limit} bytes")
        if body.slot is not None:
            self._owner.arena.write(body.slot, body.offset + body.size, piece)
        else:
            body.memory += piece
        body.size += len(piece)

    def _complete(self) -> None:
        head, body = self._head, self._body
        assert head is not None  # noqa: S101 - an End follows a Head
        self._answering = True
        if body.refused is not None or self._route is None:
            status, text = body.refused or (404, "nothing is here")
            self.respond(status, documents.error(text), extra={"Retry-After": "1"} if status == 503 else None)
            return
        coding = head.headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            try:
                self._unpack(coding)
            except framing.FramingError as error:
                self._refuse(error.status, str(error))
                return
        self._body = Body()
        self._owner.arrived(self, head, self._route, body)

    def _unpack(self, coding: str) -> None:
        body = self._body
        plain = framing.inflate(body.memory, coding, body.limit)
        body.memory = bytearray(plain)
        body.size = len(plain)
        if body.limit == MAX_BODY:
            body.slot = self._owner.arena.acquire()
            if body.slot is None:
                raise framing.FramingError(503, "all places for requests are taken; try again shortly")
            self._owner.arena.request(body.slot)[body.offset : body.offset + body.size] = plain

    def _refuse(self, status: int, text: str) -> None:
        """Answer and close: where the next request would begin is not known."""
        self._give_back()
        self._head = None
        self.respond(status, documents.error(text))

    def _give_back(self) -> None:
        body, self._body = self._body, Body()
        if body.slot is not None:
            self._owner.arena.release(body.slot, request_bytes=body.size)
