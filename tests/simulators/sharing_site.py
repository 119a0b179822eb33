"""Devices that share, made of the agent's own parts; only what serves models is missing."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from agent.identity import Keys
from agent.peers.driver import Peers
from agent.settings import PeerSettings, UpdateSettings
from agent.update.chunk_store import ChunkStore
from agent.update.fetch import Backoff
from agent.update.journal import Journal
from agent.update.sources import Sources
from shared.identifiers import sha256
from shared.manifest import Chunk

LAN = "127.0.0.1"
QUICK = Backoff(0.02, 0.2)


def settings(**more: object) -> PeerSettings:
    """Of a device that shares, at any free port of loopback."""
    return PeerSettings.model_validate({"share": "on", "address": LAN, "port": 0, "wait_seconds": 20, **more})


def sealed(count: int, size_bytes: int = 2000, seed: int = 0) -> dict[str, bytes]:
    """Chunks as a depot holds them: bytes and their names."""
    chance = random.Random(seed)
    made = [chance.randbytes(size_bytes) for _ in range(count)]
    return {sha256(data): data for data in made}


def chunks_of(sealed_bytes: dict[str, bytes]) -> list[Chunk]:
    return [Chunk(id=name, size_bytes=len(data), plain_bytes=1) for name, data in sealed_bytes.items()]


class Counted(httpx2.AsyncBaseTransport):
    """A way to the manager that counts what devices load there, and can be cut."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self.loaded: Counter[str] = Counter()  # path of a chunk -> how often
        self.asked = 0
        self.cut = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.cut:
            raise httpx2.ConnectError("cut off")
        answer = await self._inner.handle_async_request(request)
        path = request.url.path
        self.asked += path.startswith("/api/v1/peers")
        if path.startswith("/chunks/") and answer.status_code == httpx2.codes.OK:
            self.loaded[path.removeprefix("/chunks/")] += 1
        return answer


@dataclass
class SharingDevice:
    """One device. `share()` is one run of its sharing."""

    name: str
    folder: Path
    http: httpx2.AsyncClient
    manager_url: str = "http://fleet"
    settings: PeerSettings = field(default_factory=settings)
    keys: Keys = field(default_factory=Keys.make)
    busy: str | None = None

    def __post_init__(self) -> None:
        self.store = ChunkStore(self.folder / self.name, keep_seconds=3600)
        self.journal = Journal(self.folder / self.name / "update.sqlite")
        self.sources = Sources.over(
            self.http,
            UpdateSettings(),
            manager_url=self.manager_url,
            store=self.store,
            backoff=QUICK,
            trouble=lambda _: None,
        )
        self.peers = Peers(
            self.settings,
            state_dir=self.folder / self.name,
            journal=self.journal,
            store=self.store,
            sources=self.sources,
            hindered=self._hindered,
            http=self.http,
            manager_url=self.manager_url,
            device=self.name,
            seed=self.keys.sign,
            sign=self.keys.signature,
        )

    async def _hindered(self) -> str | None:
        return self.busy

    @asynccontextmanager
    async def share(self) -> AsyncIterator["SharingDevice"]:
        """Known to the manager, and its door open."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.peers.run())
            async with asyncio.timeout(20):
                await self.peers.ready.wait()
            try:
                yield self
            finally:
                task.cancel()
        self.journal.close()

    async def fetch(self, wanted: Sequence[Chunk]) -> None:
        """As an update does."""
        await self.sources.chunks([chunk for chunk in wanted if not self.store.has(chunk)], lambda _: None)

    def has_all(self, wanted: Sequence[Chunk]) -> bool:
        return all(self.store.has(chunk) for chunk in wanted)
