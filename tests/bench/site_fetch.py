"""A thousand devices of twenty sites fetch one release, sharing: how many copies of it the manager serves to each site.

python -m tests.bench.site_fetch [--quick] [--json]

The manager is a process of its own. Devices are the agent's own parts (sources, chunk store, TLS on both sides, one
listening socket each) in one process, all at this machine's loopback; what they load is counted at their way to the
manager, by site. `--quick`: 5 sites of 20.
"""

import asyncio
import logging
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from agent.identity import Keys
from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.releases.folder_depot import FolderDepot
from fleet.store.database import Database
from fleet.store.tables import Device
from shared.manifest import Chunk
from tests.bench.document import Result, arguments, median, tell
from tests.simulators.sharing_site import Counted, SharingDevice, chunks_of, sealed, settings

CHUNKS = 12
CHUNK_BYTES = 64 * 1024
LIMIT_SECONDS = 1200


class Site:
    """Devices of one site, and what they load from the manager."""

    def __init__(self, name: str, folder: Path, manager_url: str, keys: dict[str, Keys]) -> None:
        limits = httpx2.Limits(max_connections=8)
        self.way = Counted(httpx2.AsyncHTTPTransport(limits=limits))
        self.http = httpx2.AsyncClient(transport=self.way, timeout=120)
        self.devices = [
            SharingDevice(
                device,
                folder / name,
                self.http,
                manager_url=manager_url,
                settings=settings(wait_seconds=LIMIT_SECONDS),
                keys=mine,
            )
            for device, mine in keys.items()
        ]

    def copies(self, wanted: Sequence[Chunk]) -> float:
        """Of the whole release, that left the manager for here."""
        return sum(self.way.loaded.values()) / len(wanted)


async def _prepared(household: Household, sites: dict[str, dict[str, Keys]], files: dict[str, bytes]) -> None:
    """Devices enrolled, chunks in the depot, before the manager runs."""
    household.manager_folder.mkdir(parents=True)
    database = Database(f"sqlite+aiosqlite:///{household.manager_folder / 'fleet.sqlite'}")
    await database.open()
    async with database.write() as tx:
        for site, devices in sites.items():
            tx.add_all(_row(device, site, keys) for device, keys in devices.items())
    await database.close()
    depot = FolderDepot(household.manager_folder / "depot")
    for name, data in files.items():
        depot.put(name, data)


def _row(device: str, site: str, keys: Keys) -> Device:
    return Device(
        id=device,
        name=device,
        site=site,
        labels={},
        lifecycle="active",
        sign_key=keys.sign_public,
        box_key=keys.box_public,
        api_key_hash="",
        enrolled_at=datetime.now(UTC),
        slots=[],
        serving={},
    )


async def _fetch(folder: Path, sites: int, each: int) -> list[Result]:
    files = sealed(CHUNKS, CHUNK_BYTES)
    wanted = chunks_of(files)
    keys = {f"site-{site}": {f"cam-{site}-{number}": Keys.make() for number in range(each)} for site in range(sites)}
    household = Household(folder, settings={**MANAGER_SETTINGS, "peers": {"sites": ["*"]}})
    await _prepared(household, keys, files)
    try:
        url, _ = household.start_manager()
        places = [Site(name, folder, url, mine) for name, mine in keys.items()]
        devices = [device for place in places for device in place.devices]
        async with AsyncExitStack() as stack:
            for place in places:
                await stack.enter_async_context(place.http)
            began = time.monotonic()
            for device in devices:
                await stack.enter_async_context(device.share())
            joined = time.monotonic() - began
            async with asyncio.timeout(LIMIT_SECONDS):
                await asyncio.gather(*(device.fetch(wanted) for device in devices))
            fetched = time.monotonic() - began - joined
            return _results(places, devices, wanted, joined, fetched)
    finally:
        household.stop()


def _results(
    places: Sequence[Site], devices: Sequence[SharingDevice], wanted: Sequence[Chunk], joined: float, fetched: float
) -> list[Result]:
    copies = [place.copies(wanted) for place in places]
    total = sum(chunk.size_bytes for chunk in wanted)
    came = [device.sources.received for device in devices]
    asked = sum(place.way.asked for place in places) / len(devices)
    return [
        Result("devices", len(devices), "devices"),
        Result("devices without the whole release", sum(not it.has_all(wanted) for it in devices), "devices", 0),
        Result("copies that the manager serves to a site, at most", max(copies), "copies", 2),
        Result("copies that the manager serves to a site, median", median(copies), "copies"),
        Result("of one chunk, at most", max(max(it.way.loaded.values()) for it in places), "copies", 2),
        Result("without sharing", len(devices) / len(places), "copies"),
        Result(
            "bytes fetched by a device beyond the release, at most",
            max(sum(it.values()) for it in came) - total,
            "B",
            0,
        ),
        Result("share of bytes that came from peers", 100 * sum(it["peer"] for it in came) / total / len(came), "%"),
        Result("asks of a device", asked, "requests"),
        Result("until all devices had joined", joined, "s"),
        Result("until all devices had the release", fetched, "s"),
    ]


def main() -> int:
    chosen = arguments("copies of a release for each site")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="flotilla-sites-", dir=memory if memory.is_dir() else None))
    try:
        results = asyncio.run(_fetch(folder, *((5, 20) if chosen.quick else (20, 50))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tell("site_fetch", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
