"""A cache at the site of the device: any web server that has chunks and manifests under the manager's paths.

Asked once for each thing; whoever waits for ever is `fetch`, and only for the manager.

I/O: network, tasks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx2

from agent.update.reasons import SourceUnavailableError
from shared.manifest import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from shared.manifest import Chunk


#: A cache that cannot be reached is not asked again for so long, so that it costs one wait and not one for each chunk.
PAUSE_SECONDS: Final = 60.0


class SiteCache:
    """A source (`sources`) at `url`."""

    name: Final = "cache"

    def __init__(self, http: httpx2.AsyncClient, *, url: str, idle_seconds: float) -> None:
        self._http, self._url = http, url.rstrip("/")
        self._timeout = httpx2.Timeout(idle_seconds, connect=min(idle_seconds, 3.0), pool=None)
        self._not_before = 0.0

    async def chunk(self, chunk: Chunk) -> bytes:
        """The sealed chunk."""
        return await self._get(f"/chunks/{chunk.id}", chunk.size_bytes)

    async def manifest(self, digest: str) -> bytes:
        """The manifest."""
        return await self._get(f"/manifests/{digest}", MAX_MANIFEST_BYTES)

    async def _get(self, path: str, limit_bytes: int) -> bytes:
        if asyncio.get_running_loop().time() < self._not_before:
            raise SourceUnavailableError(f"{self._url} was not reached a moment ago")
        received = bytearray()
        try:
            async with self._http.stream("GET", self._url + path, timeout=self._timeout) as answer:
                if answer.status_code != httpx2.codes.OK:
                    raise SourceUnavailableError(f"{path} answered {answer.status_code}")
                async for block in answer.aiter_bytes():
                    received += block
                    if len(received) > limit_bytes:
                        raise SourceUnavailableError(f"{path} is longer than {limit_bytes} bytes")
        except httpx2.HTTPError as error:
            self._not_before = asyncio.get_running_loop().time() + PAUSE_SECONDS
            raise SourceUnavailableError(f"{path}: {type(error).__name__} {error}".rstrip()) from None
        return bytes(received)
