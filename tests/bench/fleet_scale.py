"""How many devices one manager carries, through a real mosquitto: simulated agents that speak the real protocol.

    connect     all at once: until the manager knows that everybody is there
    steady      a heartbeat and a window of telemetry from each, as from ten times as many that tell once a minute
    rollout     one release to all: announced, eight reports of each, committed

python -m tests.bench.fleet_scale [--quick] [--json]

Manager (SQLite, one process), mosquitto and all devices share this machine; while each part lasts, somebody looks at
the list of devices over REST. Downloads are not part of it (`site_fetch`, `install`). Goals: the manager's answers take
less than 2 s at the 99th percentile, also when all devices come at once; nothing is lost; telemetry of ten times as
many devices is durable and acknowledged within 2 s. `--quick`: 300 devices instead of 600.
"""

import asyncio
import contextlib
import logging
import resource
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil

from agent.identity import Keys
from fleet.store.database import Database
from fleet.store.tables import Device
from tests.bench.document import Result, arguments, tell
from tests.simulators.fleet import Fleet, running
from tests.simulators.light_device import LightDevice
from tests.simulators.storm import mosquitto

AS_MANY_AS = 10  # a device that tells every 6 s stands for so many that tell once a minute
MINUTE = 60.0
ANSWER_SECONDS = 2.0
PATIENCE_SECONDS = 150.0


def main() -> int:
    chosen = arguments("devices that one manager carries")
    if mosquitto() is None:
        raise SystemExit("this needs mosquitto: make system-deps")
    logging.disable(logging.INFO)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    size, seconds = (300, 15.0) if chosen.quick else (600, 30.0)
    folder = Path(tempfile.mkdtemp(prefix="flotilla-scale-"))
    try:
        with _broker(folder) as port, _fleet(folder, port) as fleet:
            results = asyncio.run(_measured(fleet, size, seconds))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        shutil.rmtree(folder, ignore_errors=True)
    return tell("fleet_scale", results, as_json=chosen.json)


@contextmanager
def _broker(folder: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = int(door.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n")
    process = subprocess.Popen([mosquitto() or "mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def _fleet(folder: Path, port: int) -> Iterator[Fleet]:
    deployment = {"deployment_timeout_minutes": 5, "max_concurrent_deployments": 100_000}
    with running(folder / "fleet", port, deployment=deployment) as fleet:
        fleet.publish("1.0.0")
        yield fleet


async def _measured(fleet: Fleet, size: int, seconds: float) -> list[Result]:
    keys = {f"cam-{number:05}": Keys.make() for number in range(size)}
    await _enrolled(fleet, keys)
    delays: list[float] = []
    devices = [LightDevice(name, mine, delays) for name, mine in keys.items()]
    manager = psutil.Process(fleet.household.pid("fleet"))
    results: list[Result] = []
    async with asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        async with _looked_at(fleet) as answers:
            await _all(device.connect(fleet.broker_port) for device in devices)
            connected = time.monotonic() - began
            lives = [tasks.create_task(device.run()) for device in devices]
            await _until(lambda: _count(fleet, "SELECT count(*) FROM devices WHERE online") == size)
        results += [
            Result(f"{size} devices connected", connected, "s"),
            Result(f"{size} devices known to be online", time.monotonic() - began, "s"),
            Result("manager's answers meanwhile, p99", _p99(answers), "s", ANSWER_SECONDS),
        ]
        results += await _steady(fleet, devices, delays, manager, seconds)
        results += await _rollout(fleet, devices)
        results.append(Result("memory of the manager", manager.memory_info().rss / 2**20, "MiB"))
        for life in lives:
            life.cancel()
    return results


async def _steady(
    fleet: Fleet, devices: list[LightDevice], delays: list[float], manager: psutil.Process, seconds: float
) -> list[Result]:
    every = MINUTE / AS_MANY_AS
    spent, began = sum(manager.cpu_times()[:2]), time.monotonic()
    told = 0

    async def lives(device: LightDevice, phase: float) -> None:
        nonlocal told
        await asyncio.sleep(phase)
        while time.monotonic() - began < seconds:
            await device.beat()
            await device.tell(60)
            told += 1
            await asyncio.sleep(every)

    async with _looked_at(fleet) as answers:
        await _all(lives(device, every * number / len(devices)) for number, device in enumerate(devices))
        lasted = time.monotonic() - began
        await _until(lambda: not any(device.unacknowledged for device in devices))
    share = (sum(manager.cpu_times()[:2]) - spent) / (time.monotonic() - began)
    stored = _count(fleet, "SELECT count(*) FROM windows")
    again = sum(device.resent for device in devices)
    stands_for = len(devices) * AS_MANY_AS
    return [
        Result(f"telemetry and heartbeats as of {stands_for} devices", 2 * told / lasted, "messages/s"),
        Result("a window is durable and acknowledged, median", statistics.median(delays), "s"),
        Result("a window is durable and acknowledged, p99", _p99(delays), "s", ANSWER_SECONDS),
        Result("windows lost", told - stored, "windows", 0),
        Result("messages that had to be sent again", again, "messages"),
        Result("of one core, the manager", 100 * share, "%"),
        Result("manager's answers meanwhile, p99", _p99(answers), "s", ANSWER_SECONDS),
    ]


async def _rollout(fleet: Fleet, devices: list[LightDevice]) -> list[Result]:
    began = time.monotonic()
    async with _looked_at(fleet) as answers:
        rollout = await asyncio.to_thread(fleet.start_rollout, "1.0.0")
        query = f"SELECT count(*) FROM deployments WHERE rollout_id = '{rollout}' AND told_at IS NOT NULL"
        await _until(lambda: _count(fleet, query) == len(devices))
        announced = time.monotonic() - began
        done = f"SELECT count(*) FROM deployments WHERE rollout_id = '{rollout}' AND state = 'committed'"
        await _until(lambda: _count(fleet, done) == len(devices))
        committed = time.monotonic() - began
        ended = "SELECT count(*) FROM rollouts WHERE state = 'completed'"
        await _until(lambda: _count(fleet, ended) == 1)
    reports = _count(fleet, f"SELECT count(*) FROM reports WHERE rollout_id = '{rollout}'")
    return [
        Result(f"rollout to {len(devices)} devices: all decided", announced, "s"),
        Result("all committed, by the manager's book", committed, "s"),
        Result("completed", time.monotonic() - began, "s"),
        Result("reports each second", reports / committed, "reports/s"),
        Result("devices that do not serve it", sum(not device.serving for device in devices), "devices", 0),
        Result("manager's answers meanwhile, p99", _p99(answers), "s", ANSWER_SECONDS),
    ]


async def _enrolled(fleet: Fleet, keys: dict[str, Keys]) -> None:
    database = Database(f"sqlite+aiosqlite:///{fleet.database}")
    await database.open()
    async with database.write() as tx:
        for name, mine in keys.items():
            tx.add(
                Device(
                    id=name, name=name, labels={}, sign_key=mine.sign_public, box_key=mine.box_public, site="hall",
                    api_key_hash=name, enrolled_at=datetime.now(UTC), slots=[], serving={}, lifecycle="active",
                )
            )  # fmt: skip
    await database.close()


async def _all(works: Iterator[object]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)  # type: ignore[arg-type]


@asynccontextmanager
async def _looked_at(fleet: Fleet) -> AsyncIterator[list[float]]:
    """Somebody who looks at the list of devices, a few times a second; how long each answer took."""
    taken: list[float] = []
    headers = {"Authorization": f"Bearer {fleet.token}"}

    async def look() -> None:
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            while True:
                began = time.monotonic()
                answer = await http.get(f"{fleet.url}/api/v1/devices", params={"limit": 100})
                answer.raise_for_status()
                taken.append(time.monotonic() - began)
                await asyncio.sleep(0.25)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(look())
        yield taken
        task.cancel()


def _count(fleet: Fleet, query: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{fleet.database}?mode=ro", uri=True, timeout=10)) as database:
        return int(database.execute(query).fetchone()[0])


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110  # another process makes it true
            await asyncio.sleep(0.1)


def _p99(values: list[float]) -> float:
    return round(sorted(values)[max(0, round(0.99 * len(values)) - 1)], 3)


if __name__ == "__main__":
    sys.exit(main())
