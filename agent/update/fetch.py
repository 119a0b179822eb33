"""Download chunks and manifests: several at a time, each checked by its name, resumed chunk by chunk.

A source that cannot be reached is tried again for ever, with full jitter; one that serves other bytes
than named is given a few tries. Bytes are read no further than the manifest allows.

I/O: network, tasks, chance.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2

from agent.update.chunk_store import ChunkStore
from agent.update.reasons import SourceUnavailableError
from shared import chunking
from shared.identifiers import sha256
from shared.manifest import MAX_MANIFEST_BYTES, Chunk

logger = logging.getLogger(__name__)

DAMAGED_TRIES: Final = 3
_ABSENT: Final = frozenset({httpx2.codes.NOT_FOUND, httpx2.codes.GONE})


class _AbsentError(SourceUnavailableError):
    """The source says that it has no such thing. It may be on its way there."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait between 0 and a ceiling that doubles from `first_seconds` up to `last_seconds`."""

    first_seconds: float = 0.5
    last_seconds: float = 60.0

    def waits(self) -> Iterator[float]:
        """Endless; one run of failures uses one iterator."""
        ceiling = self.first_seconds
        while True:
            yield random.uniform(0, ceiling)  # noqa: S311  # spreads load, keeps no secret
            ceiling = min(ceiling * 2, self.last_seconds)


class Fetcher:
    """Reads from one source by HTTP."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        source_url: str,
        store: ChunkStore,
        connections: int,
        idle_seconds: float,
        backoff: Backoff = Backoff(),
    ) -> None:
        self._http = http
        self._source_url = source_url.rstrip("/")
        self._store = store
        self._connections = connections
        self._timeout = httpx2.Timeout(idle_seconds, connect=min(idle_seconds, 10.0), pool=None)
        self._backoff = backoff

    async def manifest(self, digest: str) -> bytes:
        """The manifest called `digest`; waits as long as it takes.

        Raises:
            DamagedChunkError: the source has other bytes under this name.
        """
        return await self._persist(f"/manifests/{digest}", digest, limit_bytes=MAX_MANIFEST_BYTES, exact=False)

    async def chunks(self, wanted: Sequence[Chunk], progress: Callable[[int], None], *, optional: bool = False) -> None:
        """Bring every chunk into the store; waits as long as it takes. `progress` hears the bytes of each.

        Raises:
            DamagedChunkError: the source keeps serving other bytes under a chunk's name; if `optional`, also when it
                says that it does not have one.
        """
        queue = iter(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(self._connections, len(wanted))):
                    group.create_task(self._drain(queue, progress, optional=optional), name=f"fetch-{number}")
        except* chunking.DamagedChunkError as group_error:
            raise group_error.exceptions[0] from None

    async def _drain(self, queue: Iterator[Chunk], progress: Callable[[int], None], *, optional: bool) -> None:
        for chunk in queue:
            path = f"/chunks/{chunk.id}"
            data = await self._persist(path, chunk.id, limit_bytes=chunk.size_bytes, exact=True, optional=optional)
            await asyncio.to_thread(self._store.put, chunk.id, data)
            logger.debug("chunk fetched id=%s bytes=%d", chunk.id[:12], len(data))
            progress(len(data))

    async def _persist(self, path: str, name: str, *, limit_bytes: int, exact: bool, optional: bool = False) -> bytes:
        damaged = 0
        for wait in self._backoff.waits():
            try:
                data = await self._get(path, limit_bytes)
                if exact and len(data) != limit_bytes:  # a cut connection, or a portal's page
                    raise SourceUnavailableError(f"{path}: {len(data)} bytes instead of {limit_bytes}")
                if sha256(data) == name:
                    return data
                damaged += 1
                if damaged >= DAMAGED_TRIES:
                    raise chunking.DamagedChunkError(f"{path} arrived with other content {damaged} times")
                logger.warning("damaged on arrival, fetching again path=%s", path[:24])
            except _AbsentError as error:
                if optional:
                    raise chunking.DamagedChunkError(error.detail) from None
                logger.info("not at the source, trying again error=%s", error.detail)
            except SourceUnavailableError as error:
                logger.info("source unavailable, trying again error=%s", error.detail)
            await asyncio.sleep(wait)
        raise AssertionError("back-off is endless")

    async def _get(self, path: str, limit_bytes: int) -> bytes:
        received = bytearray()
        try:
            async with self._http.stream("GET", self._source_url + path, timeout=self._timeout) as answer:
                if answer.status_code in _ABSENT:
                    raise _AbsentError(f"{path} answered {answer.status_code}")
                if answer.status_code != httpx2.codes.OK:
                    raise SourceUnavailableError(f"{path} answered {answer.status_code}")
                async for block in answer.aiter_bytes():
                    received += block
                    if len(received) > limit_bytes:
                        raise SourceUnavailableError(f"{path} is longer than {limit_bytes} bytes")
        except httpx2.HTTPError as error:
            raise SourceUnavailableError(f"{path}: {type(error).__name__} {error}".rstrip()) from None
        return bytes(received)
