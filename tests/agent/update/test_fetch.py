"""Downloads over real HTTP that goes wrong in every usual way."""

import random
from itertools import islice
from pathlib import Path

import httpx2
import pytest

from agent.update import plan
from agent.update.chunk_store import ChunkStore
from agent.update.fetch import Backoff, Fetcher, _Arriving
from agent.update.reasons import SourceUnavailableError
from shared.chunking import DamagedChunkError
from shared.identifiers import sha256
from tests.simulators.release_repository import Release, ReleaseRepository

QUICK = Backoff(0.001, 0.005)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path)


@pytest.fixture
def release(repository: ReleaseRepository, models: list[bytes]) -> Release:
    return repository.publish("digits", "1.0.0", models[0])


async def fetch(release: Release, repository: ReleaseRepository, store: ChunkStore) -> int:
    seen = []
    async with httpx2.AsyncClient() as http:
        fetcher = Fetcher(http, source_url=repository.url, store=store, connections=3, idle_seconds=5, backoff=QUICK)
        wanted = [chunk for chunk in plan.chunks(release.manifest) if not store.has(chunk)]
        await fetcher.chunks(wanted, seen.append)
    return sum(seen)


async def test_every_chunk_arrives_once(release: Release, repository: ReleaseRepository, store: ChunkStore) -> None:
    assert await fetch(release, repository, store) == release.manifest.sealed_bytes
    assert all(store.get(name) == data for name, data in release.chunks.items())
    assert max(count for path, count in repository.requests.items() if path.startswith("/chunks")) == 1


async def test_what_is_here_is_not_fetched_again(
    release: Release, repository: ReleaseRepository, store: ChunkStore
) -> None:
    for name, data in list(release.chunks.items())[:-1]:
        store.put(name, data)
    last = list(release.chunks)[-1]
    assert await fetch(release, repository, store) == len(release.chunks[last])
    assert [path for path in repository.requests if path.startswith("/chunks")] == [f"/chunks/{last}"]


async def test_a_connection_cut_in_the_middle_is_tried_again(
    release: Release, repository: ReleaseRepository, store: ChunkStore
) -> None:
    repository.faults.cut = {f"/chunks/{name}" for name in release.chunks}
    await fetch(release, repository, store)
    assert all(repository.requests[f"/chunks/{name}"] == 2 for name in release.chunks)


async def test_a_portals_page_instead_of_chunks_is_waited_out(
    release: Release, repository: ReleaseRepository, store: ChunkStore
) -> None:
    name = next(iter(release.chunks))
    right = repository.files[f"/chunks/{name}"]
    repository.files[f"/chunks/{name}"] = b"<html>pay here</html>"
    original = repository._answer

    def answer(request: object) -> None:
        if repository.requests[f"/chunks/{name}"] >= 5:
            repository.files[f"/chunks/{name}"] = right
        original(request)  # type: ignore[arg-type]

    repository._answer = answer  # type: ignore[method-assign]
    await fetch(release, repository, store)
    assert store.get(name) == right


async def test_a_chunk_that_stays_damaged_is_given_up(
    release: Release, repository: ReleaseRepository, store: ChunkStore
) -> None:
    name = next(iter(release.chunks))
    repository.faults.flip = {f"/chunks/{name}"}
    with pytest.raises(DamagedChunkError):
        await fetch(release, repository, store)
    assert repository.requests[f"/chunks/{name}"] == 3


async def test_an_endless_answer_is_not_read_to_its_end(
    release: Release, repository: ReleaseRepository, store: ChunkStore
) -> None:
    name = next(iter(release.chunks))
    repository.files[f"/chunks/{name}"] = b"x" * 50_000_000
    async with httpx2.AsyncClient() as http:
        fetcher = Fetcher(http, source_url=repository.url, store=store, connections=1, idle_seconds=5)
        arriving = _Arriving()
        with pytest.raises(SourceUnavailableError, match="longer than"):
            await fetcher._get(f"/chunks/{name}", arriving, len(release.chunks[name]))
        assert not arriving.data


async def test_a_manifest_is_checked_by_its_name(
    repository: ReleaseRepository, release: Release, store: ChunkStore
) -> None:
    async with httpx2.AsyncClient() as http:
        fetcher = Fetcher(http, source_url=repository.url, store=store, connections=1, idle_seconds=5, backoff=QUICK)
        assert await fetcher.manifest(release.digest) == release.data
        repository.faults.flip = {f"/manifests/{release.digest}"}
        with pytest.raises(DamagedChunkError):
            await fetcher.manifest(release.digest)


def test_waits_are_spread_and_their_ceiling_doubles_to_a_limit() -> None:
    random.seed(4)
    runs = [list(islice(Backoff(1, 8).waits(), 6)) for _ in range(200)]
    highest = [max(run[step] for run in runs) for step in range(6)]
    assert [round(value) for value in highest] == [1, 2, 4, 8, 8, 8]
    assert min(run[5] for run in runs) < 1


def test_the_store_gives_nothing_that_it_cannot_name(store: ChunkStore, release: Release) -> None:
    name, data = next(iter(release.chunks.items()))
    with pytest.raises(DamagedChunkError):
        store.get(name)
    store.put(name, b"other")
    with pytest.raises(DamagedChunkError):
        store.get(name)
    store.put(name, data)
    assert store.get(name) == data
    other = sha256(b"kept")
    store.put(other, b"kept")
    store.prune(keep={other})
    assert store.get(other) == b"kept"
    with pytest.raises(DamagedChunkError):
        store.get(name)
