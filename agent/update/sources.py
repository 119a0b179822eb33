"""Where chunks come from: one source after the other, and the manager by HTTP for all that they do not have.

    bundle -> peers of the site -> site cache -> manager (fetch) -> last resort: the broker, once the manager
                                                                    brought nothing for a while

Every source is one port: `chunk` and `manifest`, or an error. None is trusted: what arrives is checked by its name
here, whatever brought it (tests/contracts holds all sources to it).

I/O: network, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from agent.update.fetch import Fetcher
from agent.update.reasons import NotThereError, SourceUnavailableError
from agent.update.site_cache import SiteCache
from shared import chunking
from shared.bundle import BundleError
from shared.identifiers import sha256

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import httpx2

    from agent.peers.swarm import Swarm
    from agent.settings import UpdateSettings
    from agent.update.chunk_store import ChunkStore
    from agent.update.fetch import Backoff
    from shared.errors import FlotillaError
    from shared.manifest import Chunk

logger = logging.getLogger(__name__)

PEER: Final = "peer"
#: A device that gets its chunks through the broker tries the manager's HTTP again this often.
HTTP_AGAIN_SECONDS: Final = 600.0
#: Peers are asked again for a manifest that the manager does not give.
PEERS_AGAIN_SECONDS: Final = 30.0


class Source(Protocol):
    """A place that may have what is wanted.

    Both methods return bytes, which may be wrong ones. They raise SourceUnavailableError, DamagedChunkError or
    BundleError when there are none, and come to an end by themselves.
    """

    @property
    def name(self) -> str:
        """One word for reports and logs."""

    async def chunk(self, chunk: Chunk) -> bytes:
        """The sealed chunk."""

    async def manifest(self, digest: str) -> bytes:
        """The manifest."""


class Sources:
    """Asks each attached source in turn, then the manager, who is asked until he answers."""

    def __init__(self, fetcher: Fetcher, *, store: ChunkStore, connections: int) -> None:
        self._fetcher, self._store, self._connections = fetcher, store, connections
        self._attached: list[Source] = []
        self._cache: Source | None = None
        self._swarm: Swarm | None = None
        self._last: Source | None = None
        self._patience_seconds = 0.0
        self.received: Counter[str] = fetcher.received  # bytes of chunks by source, since the start, also of repeats

    @classmethod
    def over(
        cls,
        http: httpx2.AsyncClient,
        settings: UpdateSettings,
        *,
        manager_url: str,
        store: ChunkStore,
        backoff: Backoff,
        trouble: Callable[[FlotillaError], None],
    ) -> Sources:
        """Those of a device at its start: the cache of its site, if it has one, and the manager."""
        fetcher = Fetcher.of(settings, http, source_url=manager_url, store=store, backoff=backoff, trouble=trouble)
        found = cls(fetcher, store=store, connections=settings.fetch_connections)
        if settings.site_cache_url is not None:
            url = settings.site_cache_url
            found.cache_in(SiteCache(http, url=url, idle_seconds=settings.fetch_idle_seconds))
        return found

    async def from_peer(self, received_bytes: int, *, of_chunk: bool) -> None:
        """Count `received_bytes` more from a peer, and wait, so that all downloads together keep to the limit."""
        if of_chunk:
            self.received[PEER] += received_bytes
        await self._fetcher.pace(received_bytes)

    def cache_in(self, cache: Source) -> None:
        """Ask `cache` before the manager."""
        self._cache = cache

    def share(self, swarm: Swarm) -> None:
        """Fetch together with the other devices of the site."""
        self._swarm = swarm

    def attach(self, source: Source) -> None:
        """Ask `source` before all others from now on; it takes the place of one with the same name."""
        self._attached = [source, *(one for one in self._attached if one.name != source.name)]

    def detach(self, name: str) -> None:
        """Ask the source called `name` no more."""
        self._attached = [one for one in self._attached if one.name != name]

    def fall_back_on(self, source: Source, *, after_seconds: float) -> None:
        """Ask `source` whenever the manager brought nothing by HTTP for `after_seconds`."""
        self._last, self._patience_seconds = source, after_seconds

    async def manifest(self, digest: str) -> bytes:
        """The manifest called `digest`; waits as long as it takes.

        Raises:
            DamagedChunkError: the manager has other bytes under this name.
        """
        for source in self._attached:
            if (data := await _asked(source, source.manifest(digest), digest)) is not None:
                return data
        cache, last, swarm = self._cache, self._last, self._swarm
        while True:
            if swarm is not None and (data := await swarm.manifest(digest)) is not None:
                return data
            if cache is not None and (data := await _asked(cache, cache.manifest(digest), digest)) is not None:
                return data
            patience = self._patience_seconds if last is not None else PEERS_AGAIN_SECONDS
            try:
                async with asyncio.timeout(patience if last is not None or swarm is not None else None):
                    return await self._fetcher.manifest(digest)
            except TimeoutError:
                if last is not None and (data := await _asked(last, last.manifest(digest), digest)) is not None:
                    return data

    async def chunks(self, wanted: Sequence[Chunk], progress: Callable[[int], None], *, optional: bool = False) -> None:
        """Bring every chunk into the store; waits as long as it takes. `progress` hears the bytes of each.

        Raises:
            DamagedChunkError: the manager keeps serving other bytes under a chunk's name; if `optional`, also when it
                says that it does not have one.
            OSError: the disk fails otherwise than by being full.
        """
        left: Sequence[Chunk] = await self._from(self._attached, wanted, progress)
        if self._swarm is not None and left:

            async def keep(chunk: Chunk, data: bytes) -> None:
                await self._keep(chunk, data, progress)

            async def outside(chunks: Sequence[Chunk]) -> None:
                await self._outside(chunks, progress, optional=optional)

            left = await self._swarm.bring(left, keep=keep, outside=outside)
        await self._outside(left, progress, optional=optional)

    async def _outside(self, wanted: Sequence[Chunk], progress: Callable[[int], None], *, optional: bool) -> None:
        """From the cache, and what is not there from the manager; errors as of `chunks`."""
        caches = [self._cache] if self._cache is not None else []
        left = await self._from(caches, wanted, progress)
        while left and (last := self._last) is not None:
            if await self._by_http(left, progress, patience_seconds=self._patience_seconds, optional=optional):
                return
            left = [chunk for chunk in left if not self._store.has(chunk)]
            left = await self._by_last_resort(last, left, progress, optional=optional)
        await self._by_http(left, progress, patience_seconds=None, optional=optional)

    async def _by_http(
        self,
        wanted: Sequence[Chunk],
        progress: Callable[[int], None],
        *,
        patience_seconds: float | None,
        optional: bool,
    ) -> bool:
        """True when all is here; False when no chunk came for `patience_seconds`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_seconds) as patience:

                def counted(fetched: int) -> None:
                    if patience_seconds is not None:
                        patience.reschedule(loop.time() + patience_seconds)
                    progress(fetched)

                await self._fetcher.chunks(wanted, counted, optional=optional)
        except TimeoutError:
            return False
        return True

    async def _by_last_resort(
        self, last: Source, wanted: Sequence[Chunk], progress: Callable[[int], None], *, optional: bool
    ) -> list[Chunk]:
        """What is still to come when it failed once, or when it is time to try HTTP again."""
        logger.info("nothing by http, falling back source=%s chunks=%d", last.name, len(wanted))
        until = asyncio.get_running_loop().time() + HTTP_AGAIN_SECONDS
        queue = list(wanted)
        while queue and asyncio.get_running_loop().time() < until:
            if not await self._kept(last, queue[0], progress, optional=optional):
                break
            del queue[0]
        return queue

    async def _from(
        self, sources: Sequence[Source], wanted: Sequence[Chunk], progress: Callable[[int], None]
    ) -> list[Chunk]:
        """Ask each of `sources` once for each chunk; what none of them has."""
        left: list[Chunk] = []
        if not sources:
            return list(wanted)
        queue = iter(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(self._connections, len(wanted))):
                    group.create_task(self._drain(sources, queue, left, progress), name=f"source-{number}")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return left

    async def _drain(
        self, sources: Sequence[Source], queue: Iterator[Chunk], left: list[Chunk], progress: Callable[[int], None]
    ) -> None:
        for chunk in queue:
            for source in sources:
                if await self._kept(source, chunk, progress):
                    break
            else:
                left.append(chunk)

    async def _kept(
        self, source: Source, chunk: Chunk, progress: Callable[[int], None], *, optional: bool = False
    ) -> bool:
        """Whether `source` gave the chunk, which is then in the store. One that is `optional` must exist there."""
        data = await _asked(source, source.chunk(chunk), chunk.id, optional=optional)
        if data is None:
            return False
        self.received[source.name] += len(data)
        await self._keep(chunk, data, progress)
        return True

    async def _keep(self, chunk: Chunk, data: bytes, progress: Callable[[int], None]) -> None:
        await self._fetcher.keep(chunk.id, data)
        progress(len(data))


async def _asked(source: Source, answer: Awaitable[bytes], name: str, *, optional: bool = False) -> bytes | None:
    """What `source` gives under `name`, if it is that.

    Raises:
        DamagedChunkError: `optional`, and the manager says that it has no such thing.
    """
    try:
        data = await answer
    except (SourceUnavailableError, chunking.DamagedChunkError, BundleError) as error:
        if optional and isinstance(error, NotThereError):
            raise chunking.DamagedChunkError(error.detail) from None
        logger.info("source has it not source=%s name=%s detail=%s", source.name, name[:12], error.detail)
        return None
    if sha256(data) == name:
        return data
    logger.warning("source gave other content source=%s name=%s", source.name, name[:12])
    return None
