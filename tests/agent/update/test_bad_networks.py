"""Whatever the network, the mirror or the disk does: a download ends complete or waits, and says why."""

import asyncio
import gc
import random
import resource
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from agent.update.chunk_store import ChunkStore
from agent.update.fetch import Backoff, Fetcher
from agent.update.pacing import Allowance, LeastRate
from shared.chunking import DamagedChunkError
from shared.errors import FlotillaError
from shared.identifiers import sha256
from shared.manifest import Chunk
from shared.messages import Phase
from tests.simulators.bad_network import Mirror, certificate
from tests.simulators.release_repository import ReleaseRepository
from tests.simulators.updating_device import Device

QUICK = Backoff(0.001, 0.02)
CHUNK_BYTES = 20_000
DATA = [random.Random(number).randbytes(CHUNK_BYTES) for number in range(6)]
CHUNKS = [Chunk(id=sha256(data), size_bytes=len(data), plain_bytes=len(data)) for data in DATA]
FILES = {f"/chunks/{sha256(data)}": data for data in DATA}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(FILES) as mirror:
        yield mirror


class Download:
    """A fetcher with an empty store of its own."""

    def __init__(self, folder: Path, url: str, *, verify: ssl.SSLContext | bool = True, **limits: int) -> None:
        self.store, self.url, self.verify, self.limits = ChunkStore(folder), url, verify, limits
        self.progress: list[int] = []
        self.troubles: list[FlotillaError] = []
        self.heard = asyncio.Event()

    async def run(self, wanted: list[Chunk] = CHUNKS, *, idle_seconds: float = 5) -> None:
        async with asyncio.timeout(20), httpx2.AsyncClient(verify=self.verify, trust_env=False) as http:
            fetcher = Fetcher(
                http,
                source_url=self.url,
                store=self.store,
                connections=3,
                idle_seconds=idle_seconds,
                backoff=QUICK,
                trouble=self._trouble,
                **self.limits,
            )
            await fetcher.chunks([chunk for chunk in wanted if not self.store.has(chunk)], self.progress.append)

    def _trouble(self, error: FlotillaError) -> None:
        self.troubles.append(error)
        self.heard.set()

    @property
    def complete(self) -> bool:
        whole = all(self.store.get(chunk.id) == data for chunk, data in zip(CHUNKS, DATA, strict=True))
        return whole and sum(self.progress) == len(DATA) * CHUNK_BYTES

    async def waits_for(self, code: str) -> None:
        """Returns once the download said why it waits."""
        async with asyncio.timeout(20):
            await self.heard.wait()
        assert [error.code for error in self.troubles] == [code]
        assert not any(self.store.has(chunk) for chunk in CHUNKS)


async def test_a_cut_at_any_byte_costs_at_most_one_chunk(tmp_path: Path, mirror: Mirror) -> None:
    total = len(DATA) * CHUNK_BYTES
    for number, at in enumerate([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, total - 1, *range(777, total, total // 25)]):
        mirror.sent, mirror.cut_at = 0, at
        download = Download(tmp_path / str(number), mirror.url)
        await download.run()
        assert download.complete
        assert mirror.cut_at is None
        assert total <= mirror.sent <= total + CHUNK_BYTES, f"cut at {at}"


async def test_a_cut_where_no_ranges_are_served_costs_at_most_the_chunk(tmp_path: Path, mirror: Mirror) -> None:
    mirror.ranges, mirror.cut_at = False, 2 * CHUNK_BYTES + 5000
    download = Download(tmp_path, mirror.url)
    await download.run()
    assert download.complete
    assert mirror.sent <= 7 * CHUNK_BYTES


async def test_a_third_of_broken_connections_only_takes_longer(tmp_path: Path, mirror: Mirror) -> None:
    mirror.drops = 0.3
    for number in range(5):
        mirror.sent = 0
        download = Download(tmp_path / str(number), mirror.url)
        await download.run()
        assert download.complete
        assert mirror.sent == len(DATA) * CHUNK_BYTES  # what had arrived is not sent again


async def test_64_kilobits_a_second_are_not_too_slow(tmp_path: Path, mirror: Mirror) -> None:
    mirror.bytes_per_second = 8000
    download = Download(tmp_path, mirror.url, minimum_bytes_per_second=500)
    await download.run(CHUNKS[:1], idle_seconds=1)
    assert download.store.get(CHUNKS[0].id) == DATA[0]
    assert mirror.requests[f"/chunks/{CHUNKS[0].id}"] == 1


async def test_a_trickle_is_given_up_and_what_it_brought_is_kept(tmp_path: Path, mirror: Mirror) -> None:
    mirror.bytes_per_second = 8000
    download = Download(tmp_path, mirror.url, minimum_bytes_per_second=1_000_000)
    await download.run(CHUNKS[:1], idle_seconds=0.5)
    assert download.store.get(CHUNKS[0].id) == DATA[0]
    assert mirror.requests[f"/chunks/{CHUNKS[0].id}"] > 1


async def test_a_captive_portals_page_is_told_and_waited_out(tmp_path: Path, mirror: Mirror) -> None:
    mirror.page = True
    await waits_then_ends(Download(tmp_path, mirror.url), mirror, "E_CAPTIVE_PORTAL")


async def test_a_captive_portals_redirect_is_told_and_waited_out(tmp_path: Path, mirror: Mirror) -> None:
    mirror.redirect, mirror.redirect_all = "http://login.example/?from=here", True
    await waits_then_ends(Download(tmp_path, mirror.url), mirror, "E_CAPTIVE_PORTAL")


async def waits_then_ends(download: Download, mirror: Mirror, code: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(download.run())
        await download.waits_for(code)
        mirror.page, mirror.redirect = False, None
    assert download.complete


async def test_an_expired_certificate_is_told_and_waited_out(tmp_path: Path) -> None:
    expired, proof = certificate(tmp_path, days=-1)
    renewed, other_proof = certificate(tmp_path, days=1)
    trusted = ssl.create_default_context(cadata=proof.read_text() + other_proof.read_text())
    with Mirror(FILES, expired) as mirror:
        download = Download(tmp_path, mirror.url, verify=trusted)
        async with asyncio.TaskGroup() as group:
            group.create_task(download.run())
            await download.waits_for("E_CERTIFICATE")
            assert "localhost has expired" in download.troubles[0].detail
            mirror.tls = renewed
        assert download.complete


@pytest.fixture
def swept() -> Iterator[None]:
    """Python 3.11.2 leaves the socket of a handshake that was called off to the collector: it is done here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("swept")
async def test_a_certificate_of_nobody_we_know_is_told(tmp_path: Path) -> None:
    own, _ = certificate(tmp_path, days=1)
    with Mirror(FILES, own) as mirror:
        download = Download(tmp_path, mirror.url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await download.run()
        await download.waits_for("E_CERTIFICATE")


async def test_a_full_disk_is_told_and_waited_out(tmp_path: Path, mirror: Mirror) -> None:
    download = Download(tmp_path, mirror.url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES // 2, hard))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(download.run())
            await download.waits_for("E_DISK_SPACE")
            assert not [path for path in (tmp_path / "chunks").glob("*/*") if not path.name.startswith(".")]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert download.complete
    assert mirror.sent == len(DATA) * CHUNK_BYTES  # nothing was fetched twice for it


async def test_a_garbage_source_ends_in_an_error_and_leaves_nothing(tmp_path: Path, mirror: Mirror) -> None:
    mirror.garbage = True
    download = Download(tmp_path, mirror.url)
    with pytest.raises(DamagedChunkError):
        await download.run()
    assert not any(download.store.has(chunk) for chunk in CHUNKS)


async def test_the_source_may_send_us_to_a_mirror(tmp_path: Path, mirror: Mirror) -> None:
    with Mirror({}) as manager:
        manager.redirect = f"{mirror.url}/"
        download = Download(tmp_path, manager.url)
        await download.run()
    assert download.complete
    assert manager.sent == 0


@pytest.mark.parametrize("fault", ["garbage", "page", "gone", "sends on"])
async def test_a_bad_mirror_makes_us_ask_the_source_itself(tmp_path: Path, mirror: Mirror, fault: str) -> None:
    match fault:
        case "garbage":
            mirror.garbage = True
        case "page":
            mirror.page = True
        case "gone":
            mirror.files.clear()
        case _:
            mirror.redirect, mirror.redirect_all = f"{mirror.url}/", True
    with Mirror(FILES) as manager:
        manager.redirect = f"{mirror.url}/"
        download = Download(tmp_path, manager.url)
        await download.run()
    assert download.complete
    assert sum(mirror.requests.values()) <= 3  # one of each connection, then it is shunned


async def test_no_more_is_downloaded_in_a_second_than_allowed(tmp_path: Path, mirror: Mirror) -> None:
    download = Download(tmp_path, mirror.url, max_bytes_per_second=len(DATA) * CHUNK_BYTES)
    started = asyncio.get_running_loop().time()
    await download.run()
    assert download.complete
    assert asyncio.get_running_loop().time() - started > 0.9


def test_a_limit_is_kept_over_all_who_ask() -> None:
    allowance = Allowance(1000)
    assert [allowance.delay(100, 5.0), allowance.delay(100, 5.0)] == pytest.approx([0.1, 0.2])
    assert allowance.delay(500, 9.0) == pytest.approx(0.5)  # what was not used is not saved up
    assert Allowance(None).delay(10**9, 0.0) == 0


def test_only_a_whole_stretch_can_be_too_slow() -> None:
    rate = LeastRate(100, 10.0)
    assert not rate.missed(1, 9.9)
    assert rate.missed(1, 0.2)
    assert not rate.missed(1000, 10.0)
    assert not LeastRate(0, 1.0).missed(0, 5.0)


async def test_a_device_behind_a_portal_says_so_and_installs_afterwards_what_was_signed(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    right = {path: repository.files[path] for path in repository.files if path.startswith("/chunks")}
    repository.files.update(dict.fromkeys(right, b"<!DOCTYPE html><p>sign in"))
    repository.faults.cut = set(list(right)[::2])
    repository.faults.flip_once = set(list(right)[1::2])
    async with device.on():
        await device.assign(release)
        await device.until(lambda: any(draft.reason == "E_CAPTIVE_PORTAL" for draft in device.reports))
        assert {draft.phase for draft in device.reports if draft.reason} == {Phase.FETCHING}
        assert device.serving.loaded == {}
        repository.files.update(right)
        await device.until(lambda: device.serves("1.0.0"))
        assert device.serving.loaded["digits", "1.0.0"].path.read_bytes() == models[0]
