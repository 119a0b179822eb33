"""Serves what this device has to other devices of its site, and nothing to anybody else.

    TLS, both sides --site in the certificate?--> GET /chunks/ID or /manifests/DIGEST --> 200, 404, or 503: not now

Few connections, a rate for all of them, nothing while the machine is hot or busy.

I/O: disk, network, tasks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from typing import TYPE_CHECKING, Final

from agent.update.pacing import Allowance
from shared import chunking
from shared.identifiers import DIGEST_PATTERN
from shared.peers import CHUNKS, MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.peers.passport import Passport
    from agent.settings import PeerSettings

logger = logging.getLogger(__name__)

HEAD_BYTES: Final = 4096
HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 20.0
#: At most this long for one piece of an answer: who reads slower is not served.
_PIECE: Final = 64 * 1024
_STALL_SECONDS: Final = 20.0
#: What the machine feels like is looked at so often.
_LOOK_SECONDS: Final = 2.0
_REQUEST: Final = re.compile(rf"GET ({CHUNKS}|{MANIFESTS})({DIGEST_PATTERN[1:-1]}) HTTP/1\.1")


class Door:
    """Open between `open` and `close`. `hindered` says why not to serve now, or None."""

    def __init__(
        self,
        settings: PeerSettings,
        passport: Passport,
        *,
        chunk: Callable[[str], bytes],
        manifest: Callable[[str], bytes | None],
        hindered: Callable[[], Awaitable[str | None]],
    ) -> None:
        self._settings, self._passport = settings, passport
        self._chunk, self._manifest, self._hindered = chunk, manifest, hindered
        self._allowance = Allowance(settings.max_bytes_per_second)
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._version = 0
        self._guests: set[asyncio.StreamWriter] = set()
        self._looked_at, self._why_not = float("-inf"), None  # type: float, str | None
        self.sent_bytes = 0

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it is open."""
        if self._server is None or not self._server.sockets:
            return None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def open(self) -> None:
        """Listen, if there is an address and a certificate; a newer certificate is used from now on. Again: nothing.

        Raises:
            OSError: the address is taken, or not one of this machine.
        """
        if self._settings.address is None or self._passport.domain is None:
            return
        if self._version != self._passport.version:
            await self.close()
            self._context, self._version = self._passport.server(), self._passport.version
        if self._server is None:
            self._server = await asyncio.start_server(
                self._receive,
                self._settings.address,
                self._settings.port,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                limit=HEAD_BYTES,
                backlog=64,
            )
            logger.info("serves peers address=%s", self.address)

    async def close(self) -> None:
        """Listen no more, and let everybody go."""
        if self._server is not None:
            self._server.close()
            for guest in tuple(self._guests):
                guest.transport.abort()
            self._server = None

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests.add(writer)
        try:
            if self._of_our_site(writer):
                crowded = len(self._guests) > self._settings.max_connections
                while await self._answer(reader, writer, crowded=crowded):
                    pass
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.debug("peer gone error=%s", type(error).__name__)
        finally:
            self._guests.discard(writer)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def _of_our_site(self, writer: asyncio.StreamWriter) -> bool:
        said = writer.get_extra_info("peercert") or {}
        names = [value for kind, value in said.get("subjectAltName", ()) if kind == "DNS"]
        ours = self._passport.domain
        if len(names) == 1 and names[0].partition(".")[2] == ours:
            return True
        logger.warning("peer of another site turned away names=%s", names)
        return False

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, crowded: bool) -> bool:
        """One request; False when the connection ends with it."""
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        asked = _REQUEST.fullmatch(head.partition(b"\r\n")[0].decode("latin-1"))
        if asked is None:
            await self._send(writer, "400 Bad Request", b"", last=True)
            return False
        if crowded or await self._not_now() is not None:
            await self._send(writer, "503 Service Unavailable", b"", last=True)
            return False
        data = self._manifest(asked[2]) if asked[1] == MANIFESTS else await asyncio.to_thread(self._read, asked[2])
        await self._send(writer, "200 OK" if data is not None else "404 Not Found", data or b"")
        return True

    def _read(self, name: str) -> bytes | None:
        try:
            return self._chunk(name)
        except (chunking.DamagedChunkError, OSError):
            return None

    async def _not_now(self) -> str | None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at, self._why_not = now, await self._hindered()
        return self._why_not

    async def _send(self, writer: asyncio.StreamWriter, status: str, body: bytes, *, last: bool = False) -> None:
        loop = asyncio.get_running_loop()
        end = "Connection: close\r\n" if last else ""
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{end}\r\n".encode())
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            if (delay := self._allowance.delay(len(piece), loop.time())) > 0:
                await asyncio.sleep(delay)
            writer.write(piece)
            async with asyncio.timeout(_STALL_SECONDS):
                await writer.drain()
            self.sent_bytes += len(piece)
        async with asyncio.timeout(_STALL_SECONDS):
            await writer.drain()
