"""Download chunks and manifests: several at a time, each checked by its name, resumed where the connection broke.

What cannot be reached is tried again for ever, with full jitter: a source that is down, silent or too slow, a network
behind a captive portal, a certificate that expired, a full disk. A source that serves other bytes than named is given a
few tries. It may say that a thing lies elsewhere (ADR 29); when nothing good comes from there, it is asked itself.
Bytes are read no further than the manifest allows.

I/O: network, tasks, chance.
"""

import asyncio
import errno
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import httpx2

from agent.settings import UpdateSettings
from agent.update import strangers
from agent.update.chunk_store import ChunkStore
from agent.update.pacing import Allowance, LeastRate
from agent.update.reasons import CaptivePortalError, DiskSpaceError, SourceUnavailableError
from shared import chunking
from shared.errors import FlotillaError
from shared.identifiers import sha256
from shared.manifest import MAX_MANIFEST_BYTES, Chunk

logger = logging.getLogger(__name__)

DAMAGED_TRIES: Final = 3
SHUNNED_SECONDS: Final = 60.0  # the place elsewhere, after something went wrong there
MANAGER: Final = "manager"  # as a source: he, or the place that he sends us to
ELSEWHERE: Final = "Flotilla-Elsewhere"  # a header: we follow a redirect to the same name (protocol.md §6)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
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


@dataclass(slots=True)
class _Arriving:
    """What is there of one answer; it survives connections."""

    data: bytearray = field(default_factory=bytearray)
    connections: int = 0  # that brought something of it
    counted: bool = False  # it is a chunk
    elsewhere: bool = False  # some of it came from where the source had sent us

    def start_over(self) -> None:
        self.data.clear()
        self.connections, self.elsewhere = 0, False


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
        minimum_bytes_per_second: int = 0,
        max_bytes_per_second: int | None = None,
        trouble: Callable[[FlotillaError], None] = lambda _: None,
    ) -> None:
        """`trouble` hears what a person should know of while we wait, each kind once until something arrives."""
        self._http = http
        self._source_url = source_url.rstrip("/")
        self._store = store
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._timeout = httpx2.Timeout(idle_seconds, connect=min(idle_seconds, 10.0), pool=None)
        self._backoff = backoff
        self._minimum = minimum_bytes_per_second
        self._allowance = Allowance(max_bytes_per_second)
        self._trouble = trouble
        self._told: set[str] = set()
        self._shunned_until = 0.0
        self.received: Counter[str] = Counter()  # bytes of chunks by source, as they came, also of what came again

    @classmethod
    def of(
        cls,
        settings: UpdateSettings,
        http: httpx2.AsyncClient,
        *,
        source_url: str,
        store: ChunkStore,
        backoff: Backoff,
        trouble: Callable[[FlotillaError], None],
    ) -> Self:
        """With the limits that the operator set."""
        return cls(
            http,
            source_url=source_url,
            store=store,
            connections=settings.fetch_connections,
            idle_seconds=settings.fetch_idle_seconds,
            backoff=backoff,
            minimum_bytes_per_second=settings.fetch_minimum_bytes_per_second,
            max_bytes_per_second=settings.max_bytes_per_second,
            trouble=trouble,
        )

    async def pace(self, received_bytes: int) -> None:
        """Wait after `received_bytes` more from anywhere, so that all downloads together keep to the limit."""
        if (delay := self._allowance.delay(received_bytes, asyncio.get_running_loop().time())) > 0:
            await asyncio.sleep(delay)

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
            OSError: the disk fails otherwise than by being full.
        """
        queue = iter(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(self._connections, len(wanted))):
                    group.create_task(self._drain(queue, progress, optional=optional), name=f"fetch-{number}")
        except ExceptionGroup as failures:  # what `except*` raises is a group again in older Python 3.11
            raise failures.exceptions[0] from None

    async def _drain(self, queue: Iterator[Chunk], progress: Callable[[int], None], *, optional: bool) -> None:
        for chunk in queue:
            path = f"/chunks/{chunk.id}"
            data = await self._persist(path, chunk.id, limit_bytes=chunk.size_bytes, exact=True, optional=optional)
            await self.keep(chunk.id, data)
            self._told.clear()
            logger.debug("chunk fetched id=%s bytes=%d", chunk.id[:12], len(data))
            progress(len(data))

    async def keep(self, name: str, data: bytes) -> None:
        """Put a chunk that was checked into the store, as soon as there is room.

        Raises:
            OSError: the disk fails otherwise than by being full.
        """
        for wait in self._backoff.waits():
            try:
                return await asyncio.to_thread(self._store.put, name, data)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._wait_for(DiskSpaceError(f"the disk has no room for a chunk of {len(data)} bytes: {error}"))
            await asyncio.sleep(wait)
        raise AssertionError("back-off is endless")

    async def _persist(self, path: str, name: str, *, limit_bytes: int, exact: bool, optional: bool = False) -> bytes:
        damaged, arriving, waits = 0, _Arriving(counted=exact), self._backoff.waits()
        while True:
            before = len(arriving.data)
            try:
                await self._get(path, arriving, limit_bytes)
                if strangers.is_page(arriving.data):
                    arriving.start_over()
                    raise CaptivePortalError(f"a web page came instead of {path}")
                if exact and len(arriving.data) != limit_bytes:  # a cut connection
                    raise SourceUnavailableError(f"{path}: {len(arriving.data)} bytes instead of {limit_bytes}")
                if sha256(arriving.data) == name:
                    return bytes(arriving.data)
                damaged += self._is_damage(arriving, path)
                if damaged >= DAMAGED_TRIES:
                    raise chunking.DamagedChunkError(f"{path} arrived with other content {damaged} times")
                arriving.start_over()
            except SourceUnavailableError as error:
                if optional and isinstance(error, _AbsentError):
                    raise chunking.DamagedChunkError(error.detail) from None
                self._wait_for(error)
            if len(arriving.data) > before:  # it goes forward: no reason to wait for longer each time
                waits = self._backoff.waits()
            await asyncio.sleep(next(waits))

    def _is_damage(self, arriving: _Arriving, path: str) -> bool:
        """Whether other bytes than named are the source's own fault."""
        logger.warning("damaged on arrival, fetching again path=%s elsewhere=%s", path[:24], arriving.elsewhere)
        if arriving.elsewhere:
            self._shun()
        return arriving.connections == 1 and not arriving.elsewhere

    def _wait_for(self, error: FlotillaError) -> None:
        logger.info("waiting, trying again code=%s error=%s", error.code, error.detail)
        if error.code != SourceUnavailableError.code and error.code not in self._told:
            self._told.add(error.code)
            self._trouble(error)

    def _shun(self) -> None:
        self._shunned_until = asyncio.get_running_loop().time() + SHUNNED_SECONDS

    async def _get(self, path: str, arriving: _Arriving, limit_bytes: int) -> None:
        url, name = self._source_url + path, path.rpartition("/")[2]
        shunned = asyncio.get_running_loop().time() < self._shunned_until
        target = await self._read(url, name, arriving, limit_bytes, elsewhere=not shunned)
        if target is None:
            return
        try:
            arriving.elsewhere = True
            if await self._read(str(target), name, arriving, limit_bytes, elsewhere=False) is not None:
                raise SourceUnavailableError(f"{target.host} sends us on")
        except SourceUnavailableError as error:
            self._shun()
            if isinstance(error, _AbsentError):  # the source itself may have it
                raise SourceUnavailableError(error.detail) from None
            raise

    async def _read(
        self, url: str, name: str, arriving: _Arriving, limit_bytes: int, *, elsewhere: bool
    ) -> httpx2.URL | None:
        """Add to `arriving` what `url` has more; or the place to which it sends us."""
        headers = {"Accept-Encoding": "identity"}
        if elsewhere:
            headers[ELSEWHERE] = "1"
        if arriving.data:
            headers["Range"] = f"bytes={len(arriving.data)}-"
        try:
            async with self._http.stream("GET", url, headers=headers, timeout=self._timeout) as answer:
                if (target := strangers.redirected(answer, name)) is not None:
                    return target
                strangers.refuse_page(answer)
                self._continues(answer, arriving)
                await self._receive(answer, arriving, limit_bytes)
        except httpx2.HTTPError as error:
            raise strangers.unreachable(url, error) from None
        return None

    @staticmethod
    def _continues(answer: httpx2.Response, arriving: _Arriving) -> None:
        """Make `arriving` ready for the body of `answer`, which may be the rest or all of it."""
        if answer.status_code == httpx2.codes.PARTIAL_CONTENT:
            if answer.headers.get("content-range", "").startswith(f"bytes {len(arriving.data)}-"):
                return
            arriving.start_over()
            raise SourceUnavailableError(f"{answer.url.path} answered with another range than was asked for")
        if answer.status_code != httpx2.codes.OK:
            if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                arriving.start_over()
            kind = _AbsentError if answer.status_code in _ABSENT else SourceUnavailableError
            raise kind(f"{answer.url.path} answered {answer.status_code}")
        if arriving.data:
            arriving.start_over()

    async def _receive(self, answer: httpx2.Response, arriving: _Arriving, limit_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        rate = LeastRate(self._minimum, self._idle_seconds)
        arriving.connections += 1
        waiting_since = loop.time()
        async for block in answer.aiter_bytes():
            now = loop.time()
            arriving.data += block
            if arriving.counted:
                self.received[MANAGER] += len(block)
            if len(arriving.data) > limit_bytes:
                arriving.start_over()
                raise SourceUnavailableError(f"{answer.url.path} is longer than {limit_bytes} bytes")
            if rate.missed(len(block), now - waiting_since):
                raise SourceUnavailableError(f"{answer.url.path} comes slower than {self._minimum} bytes a second")
            await self.pace(len(block))
            waiting_since = loop.time()
