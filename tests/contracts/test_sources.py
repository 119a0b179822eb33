"""One suite for every source of chunks: what is there arrives whole, what is not is an error in time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from agent.update import plan
from agent.update.broker_source import BrokerSource
from agent.update.bundle import BundleFolder
from agent.update.chunk_store import ChunkStore
from agent.update.fetch import Backoff, Fetcher
from agent.update.reasons import SourceUnavailableError
from agent.update.site_cache import SiteCache
from agent.update.sources import Source, Sources
from shared import chunking, pieces, seal
from shared.bundle import BundleError, chunk_path
from shared.manifest import Chunk
from shared.messages import Want
from shared.mqtt_link import LinkDownError
from tests.simulators.bundles import make_bundle
from tests.simulators.release_repository import Release, ReleaseRepository, tiny_model

KEY = SigningKey.generate()
FAILURES = (SourceUnavailableError, chunking.DamagedChunkError, BundleError)


class Manager:
    """The other end of a broker link that loses and repeats: answers wishes by the real cutting code."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.source = files, None
        self.lose: set[int] = set()  # pieces that are lost once
        self.down = 0  # publishes that fail
        self.wishes: list[Want] = []

    async def wait_connected(self) -> None:
        pass

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.down:
            self.down -= 1
            raise LinkDownError("the broker is away")
        opened = seal.opened(payload, topic=topic, key=bytes(KEY.verify_key), required=True)
        want = Want.parse(opened)
        self.wishes.append(want)
        data = self.files.get(want.name)
        assert isinstance(self.source, BrokerSource)
        if data is None:
            self.source.take(pieces.encode(pieces.Piece(transfer=want.transfer, size_bytes=0), b""))
            return
        for index in pieces.indices(want.missing, want.window):
            for answer in pieces.cut(data, [index], transfer=want.transfer):
                if index in self.lose:
                    self.lose.discard(index)
                else:
                    self.source.take(answer)
                    self.source.take(answer)  # at least once is twice, sometimes


@dataclass
class Place:
    """A source over real files, and a way to damage what lies there."""

    source: Source
    damage: Callable[[str], None]
    remove: Callable[[str], None]


@pytest.fixture(params=["bundle", "cache", "mqtt"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, release: Release, repository: ReleaseRepository
) -> AsyncIterator[Place]:
    if request.param != "cache":
        yield local(request.param, tmp_path, release, repository)
        return

    def gone(name: str) -> None:
        del repository.files[f"/chunks/{name}"]

    async with httpx2.AsyncClient() as http:
        with repository:
            cache = SiteCache(http, url=f"{repository.url}/", idle_seconds=2)
            yield Place(cache, lambda name: repository.faults.flip.add(f"/chunks/{name}"), gone)


def local(kind: str, tmp_path: Path, release: Release, repository: ReleaseRepository) -> Place:
    if kind == "bundle":
        box = bytes(PrivateKey.generate().public_key)
        folder = make_bundle(tmp_path / "usb", repository, [release], box_key=box)

        def spoil(name: str) -> None:
            path = folder / chunk_path(name)
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])

        return Place(BundleFolder(folder), spoil, lambda name: (folder / chunk_path(name)).unlink())
    manager = Manager({**release.chunks, release.digest: release.data})
    manager.source = BrokerSource(
        manager,  # type: ignore[arg-type]
        device="cam-1",
        sign=lambda data: KEY.sign(data).signature,
        give_up_seconds=0.5,
        ask_again_seconds=0.02,
    )

    def damage(name: str) -> None:
        manager.files[name] = bytes([manager.files[name][0] ^ 1]) + manager.files[name][1:]

    return Place(manager.source, damage, lambda name: manager.files.pop(name) and None)


@pytest.fixture
def repository() -> ReleaseRepository:
    return ReleaseRepository()


@pytest.fixture
def release(repository: ReleaseRepository) -> Release:
    return repository.publish("digits", "1.0.0", tiny_model())


def chunks_of(release: Release) -> tuple[Chunk, ...]:
    return plan.chunks(release.manifest)


async def test_every_chunk_and_the_manifest_arrive_as_they_are(place: Place, release: Release) -> None:
    for chunk in chunks_of(release):
        assert await place.source.chunk(chunk) == release.chunks[chunk.id]
    assert await place.source.manifest(release.digest) == release.data


async def test_several_may_be_asked_for_at_once(place: Place, release: Release) -> None:
    found = await asyncio.gather(*(place.source.chunk(chunk) for chunk in chunks_of(release)))
    assert found == [release.chunks[chunk.id] for chunk in chunks_of(release)]


async def test_what_is_not_there_is_an_error_in_time(place: Place, release: Release) -> None:
    chunk = chunks_of(release)[0]
    place.remove(chunk.id)
    async with asyncio.timeout(5):
        with pytest.raises(FAILURES):
            await place.source.chunk(chunk)
        with pytest.raises(FAILURES):
            await place.source.manifest("0" * 64)


async def test_an_answer_longer_than_the_manifest_says_is_refused(place: Place, release: Release) -> None:
    long = next(chunk for chunk in chunks_of(release) if chunk.size_bytes > 1)
    short = Chunk(id=long.id, size_bytes=long.size_bytes - 1, plain_bytes=long.plain_bytes)
    async with asyncio.timeout(5):
        with pytest.raises((*FAILURES, Exception), match=r"longer|allowed|bytes are offered|no piece"):
            await place.source.chunk(short)


@asynccontextmanager
async def sources(tmp_path: Path, place: Place | None) -> AsyncIterator[tuple[Sources, ChunkStore]]:
    """The device's own choice among sources; the manager's HTTP is a closed port."""
    store = ChunkStore(tmp_path / "state")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient())
        fetcher = Fetcher(
            http,
            source_url="http://127.0.0.1:9",
            store=store,
            connections=2,
            idle_seconds=1,
            backoff=Backoff(0.01, 0.02),
        )
        found = Sources(fetcher, store=store, connections=2)
        if place is not None:
            found.attach(place.source)
        yield found, store


async def test_a_release_arrives_from_the_source_alone_and_its_bytes_are_counted(
    place: Place, release: Release, tmp_path: Path
) -> None:
    seen: list[int] = []
    async with asyncio.timeout(10), sources(tmp_path, place) as (found, store):
        assert await found.manifest(release.digest) == release.data
        await found.chunks(chunks_of(release), seen.append)
    assert all(store.get(name) == data for name, data in release.chunks.items())
    assert sum(seen) == release.manifest.sealed_bytes
    assert found.received == {place.source.name: release.manifest.sealed_bytes}


async def test_the_last_resort_is_asked_only_after_http_brought_nothing(
    place: Place, release: Release, tmp_path: Path
) -> None:
    async with asyncio.timeout(10), sources(tmp_path, None) as (found, store):
        found.fall_back_on(place.source, after_seconds=0.2)
        assert await found.manifest(release.digest) == release.data
        await found.chunks(chunks_of(release), lambda _: None)
    assert all(store.has(chunk) for chunk in chunks_of(release))


async def test_damaged_bytes_of_a_source_never_reach_the_store(place: Place, release: Release, tmp_path: Path) -> None:
    victim = chunks_of(release)[0]
    place.damage(victim.id)
    async with sources(tmp_path, place) as (found, store):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):  # the manager, who is asked next, is not there
                await found.chunks(chunks_of(release), lambda _: None)
        assert not store.has(victim)
        assert all(store.has(chunk) for chunk in chunks_of(release)[1:])


async def test_a_cache_that_is_away_costs_one_wait_and_not_one_for_each_chunk(release: Release) -> None:
    async with httpx2.AsyncClient() as http:
        cache = SiteCache(http, url="http://127.0.0.1:9", idle_seconds=2)
        first, second = chunks_of(release)[:2]
        with pytest.raises(SourceUnavailableError, match="Connect"):
            await cache.chunk(first)
        with pytest.raises(SourceUnavailableError, match="a moment ago"):
            await cache.chunk(second)


@dataclass
class Lossy:
    source: BrokerSource
    manager: Manager = field()


@pytest.fixture
def lossy() -> Lossy:
    manager = Manager({})
    source = manager.source = BrokerSource(
        manager,  # type: ignore[arg-type]
        device="cam-1",
        sign=lambda data: KEY.sign(data).signature,
        give_up_seconds=5,
        ask_again_seconds=0.02,
    )
    return Lossy(source, manager)


async def test_only_pieces_that_are_missing_are_asked_for_again(lossy: Lossy) -> None:
    data = bytes(range(256)) * 4096 + b"more"  # 17 pieces: two windows
    chunk = Chunk(id=chunking.sha256(data), size_bytes=len(data), plain_bytes=1)
    lossy.manager.files[chunk.id], lossy.manager.lose, lossy.manager.down = data, {3, 7}, 1
    assert await lossy.source.chunk(chunk) == data
    asked = [pieces.indices(want.missing, 128) for want in lossy.manager.wishes]
    assert asked == [list(range(16)), [3, 7, 16]]


def test_no_piece_is_larger_than_a_broker_takes() -> None:
    payloads = list(pieces.cut(b"x" * 200_000, list(range(10)), transfer="0" * 16))
    assert len(payloads) == 4
    assert max(map(len, payloads)) <= 64 * 1024 + 200
