"""Let a client in, or tell it why not: read its CONNECT within limits, check who it is, hand the bytes on.

I/O: network, tasks.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter

from fleet.broker import acl, connect_packet
from fleet.broker.connect_packet import Connect
from shared.errors import BadInputError

logger = logging.getLogger(__name__)

#: Type 2, length 2, no session, and the return code of MQTT 3.1.1.
WRONG_VERSION: Final = b"\x20\x02\x00\x01"
BAD_NAME: Final = b"\x20\x02\x00\x02"
NOT_AUTHORISED: Final = b"\x20\x02\x00\x05"
CONNECT_SECONDS: Final = 10.0
MAX_PACKET_BYTES: Final = 256 * 1024

#: (user name, password) -> may come in
Check = Callable[[str, str], Awaitable[bool]]


class BoundedReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt is untyped
    """Gives back the CONNECT that the door read, then the stream; a packet beyond the limit ends the connection."""

    def __init__(self, reader: asyncio.StreamReader, head: bytes) -> None:
        super().__init__(reader)
        self._head = head

    async def read(self, n: int = -1) -> bytes:
        if n > MAX_PACKET_BYTES:
            logger.warning("packet refused bytes=%d limit=%d", n, MAX_PACKET_BYTES)
            return b""  # amqtt takes it for the end of the stream
        if self._head:
            taken, self._head = self._head[:n], self._head[n:]
            return taken
        return bytes(await super().read(n))


@dataclass(frozen=True, slots=True)
class Guest:
    """A client that may come in."""

    name: str
    reader: BoundedReader
    writer: StreamWriterAdapter


async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: Check) -> Guest | None:
    """The client behind a new connection, or None after it was refused (the caller closes)."""
    wire: socket.socket | None = writer.get_extra_info("socket")
    if wire is not None:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 40 ms a round trip without it
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            head, found = await _read_connect(reader)
            refusal = await _refusal(found, check)
            if refusal is not None:
                logger.info("client refused client=%s code=%d", found.client_id[:64] or "-", refusal[3])
                writer.write(refusal)
                await writer.drain()
                return None
    except (BadInputError, TimeoutError, EOFError, OSError) as error:
        logger.info("connection refused reason=%s %s", type(error).__name__, error)
        return None
    return Guest(found.client_id, BoundedReader(reader, head), StreamWriterAdapter(writer))


async def _read_connect(reader: asyncio.StreamReader) -> tuple[bytes, Connect]:
    head = await reader.readexactly(2)
    while (length := connect_packet.remaining_length(head)) is None:
        head += await reader.readexactly(1)
    body = await reader.readexactly(length)
    return head + body, connect_packet.parse(body)


async def _refusal(found: Connect, check: Check) -> bytes | None:
    """The answer to a client that may not come in; None for one that may."""
    if found.level != 4:
        return WRONG_VERSION
    if not found.client_id or found.client_id != found.username:
        return BAD_NAME  # one client, one name: nobody can take over another's session
    if not await check(found.client_id, found.password or ""):
        return NOT_AUTHORISED
    if found.will_topic is not None and not acl.may_publish(found.client_id, found.will_topic):
        return NOT_AUTHORISED
    return None
