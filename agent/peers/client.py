"""Takes chunks and manifests from another device of the site. What comes is believed by its name alone.

I/O: network, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

import httpx2

from agent.update.reasons import SourceUnavailableError
from shared.manifest import MAX_MANIFEST_BYTES
from shared.peers import CHUNKS, MANIFESTS

if TYPE_CHECKING:
    from agent.peers.passport import Passport
    from shared.manifest import Chunk
    from shared.peers import Peer

logger = logging.getLogger(__name__)

#: A device that cannot be reached is not asked again for so long.
SHUNNED_SECONDS: Final = 30.0
_TIMEOUT: Final = httpx2.Timeout(15.0, connect=3.0)


class Arrived(Protocol):
    """Hears of bytes, and may hold up those that follow."""

    async def __call__(self, received_bytes: int, *, of_chunk: bool) -> None: ...


class PeerBusyError(SourceUnavailableError):
    """The other device serves nothing at this moment."""

    code = "E_PEER_BUSY"
    default_remedy = "the device asks another one, or again; nothing to do"


class PeerClient:
    """Connections to all peers. `arrived` is called with the bytes of each block of a chunk, or of a manifest."""

    def __init__(self, passport: Passport, *, arrived: Arrived) -> None:
        self._passport, self._arrived = passport, arrived
        self._http: httpx2.AsyncClient | None = None
        self._version = 0
        self._shunned: dict[str, float] = {}

    async def chunk(self, peer: Peer, chunk: Chunk) -> bytes:
        """What `peer` gives as the chunk.

        Raises:
            PeerBusyError: nothing now.
            SourceUnavailableError: it does not have it, or cannot be reached, or is not who it should be.
        """
        return await self._get(peer, CHUNKS + chunk.id, chunk.size_bytes)

    async def manifest(self, peer: Peer, digest: str) -> bytes:
        """What `peer` gives as the manifest; errors as of `chunk`."""
        return await self._get(peer, MANIFESTS + digest, MAX_MANIFEST_BYTES)

    async def close(self) -> None:
        """End all connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _get(self, peer: Peer, path: str, limit_bytes: int) -> bytes:
        now = asyncio.get_running_loop().time()
        if now < self._shunned.get(peer.device, 0.0):
            raise SourceUnavailableError(f"{peer.device} could not be reached a moment ago")
        http, domain = await self._client(), self._passport.domain
        host = f"[{peer.address}]" if ":" in peer.address else peer.address
        name = {"sni_hostname": f"{peer.device}.{domain}"}
        try:
            async with http.stream("GET", f"https://{host}:{peer.port}{path}", extensions=name) as answer:
                if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
                    raise PeerBusyError(f"{peer.device} serves nothing now")
                if answer.status_code != httpx2.codes.OK:
                    raise SourceUnavailableError(f"{peer.device} answered {answer.status_code}")
                return await self._body(answer, peer, limit_bytes, of_chunk=path.startswith(CHUNKS))
        except httpx2.HTTPError as error:
            self._shunned[peer.device] = now + SHUNNED_SECONDS
            raise SourceUnavailableError(f"{peer.device} at {host}: {type(error).__name__} {error}") from None

    async def _body(self, answer: httpx2.Response, peer: Peer, limit_bytes: int, *, of_chunk: bool) -> bytes:
        received = bytearray()
        async for block in answer.aiter_raw():
            received += block
            if len(received) > limit_bytes:
                raise SourceUnavailableError(f"{peer.device} sends more than {limit_bytes} bytes")
            await self._arrived(len(block), of_chunk=of_chunk)
        return bytes(received)

    async def _client(self) -> httpx2.AsyncClient:
        if self._http is None or self._version != self._passport.version:
            await self.close()
            self._http = httpx2.AsyncClient(
                verify=self._passport.client(), trust_env=False, timeout=_TIMEOUT, follow_redirects=False
            )
            self._version = self._passport.version
        return self._http
