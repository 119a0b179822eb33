"""Many devices tell a manager through a broker while both are killed again and again.

async with Storm(folder, devices=20) as storm:
    await storm.tell(records=2000, broker_kills=3, manager_kills=1)
    storm.found()                                   what the manager's database holds

Real are: outbox, uplink, link and signature of each device, mosquitto, the manager's process and its database. Killed
means SIGKILL. The broker forgets what it knew, as a new one would. The outboxes lie in memory where there is such a
folder: every device has a disk of its own, here they would all wait for one.
"""

import asyncio
import contextlib
import getpass
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import yaml

from agent.identity import Keys
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.uplink import Uplink
from agent.telemetry.window import Stamp
from fleet.settings import FleetSettings
from fleet.store.database import Database
from fleet.store.tables import Device
from shared.clock import SystemClock
from shared.messages import Ack, TelemetryWindow
from shared.mqtt_link import LinkSettings, MqttLink
from shared.topics import all_down

START: Final = datetime(2026, 11, 23, tzinfo=UTC)
RESEND: Final = timedelta(seconds=2)
MEMORY: Final = Path("/dev/shm")  # a folder of our own in it
AHEAD: Final = 500  # records that wait in one outbox
PATIENCE_SECONDS: Final = 60.0  # without any progress


def mosquitto() -> str | None:
    """Where it is installed."""
    return shutil.which("mosquitto") or next((name for name in ("/usr/sbin/mosquitto",) if Path(name).exists()), None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


@dataclass
class Found:
    """What is in the manager's database, beside what was told."""

    told: int
    stored: int
    lost: int
    doubled: int
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    manager_bytes: int = 0  # of memory, the most that one of its lives took


class Teller:
    """One device: record k says that it had k requests, so that a record is known by what it says."""

    def __init__(self, name: str, keys: Keys, folder: Path, broker: str) -> None:
        self.name, self.put, self._clock = name, 0, SystemClock()
        self.outbox = Outbox(folder / f"{name}.sqlite", device=name, limit_bytes=2**40, clock=self._clock)
        self.link = MqttLink(
            LinkSettings(url=broker, client_id=name), subscriptions=[all_down(name)], on_connect=self._connected
        )
        self.uplink = Uplink(self.outbox, self.link, device=name, sign=keys.signature, resend=RESEND, clock=self._clock)

    async def _connected(self) -> None:
        self.uplink.connected()

    @property
    def waiting(self) -> int:
        return self.outbox.depth(Kind.TELEMETRY).waiting

    async def run(self, records: int) -> None:
        """Tell so many, and end when the manager has all of them."""
        tasks = [asyncio.create_task(part) for part in (self.link.run(), self.uplink.run(), self._listen())]
        try:
            while self.put < records or self.waiting:
                if self.put < records and self.waiting < AHEAD:
                    for _ in range(min(50, records - self.put)):
                        self.put += 1
                        self.outbox.put(Kind.TELEMETRY, self._record)
                    self.uplink.wake()
                await asyncio.sleep(0.02)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.outbox.close()

    async def _listen(self) -> None:
        async for heard in self.link.messages():
            if heard.topic.endswith("/ack"):
                self.uplink.acknowledged(Ack.parse(heard.payload))
            heard.ack()

    def _record(self, stamp: Stamp) -> TelemetryWindow:
        start = START + self.put * timedelta(minutes=1)
        return TelemetryWindow(
            device=stamp.device, stream=stamp.stream, sequence=stamp.sequence, at=stamp.at, boot="ab12", model="digits",
            version="1.0.0", manifest="e" * 64, phase="serving", start=start, end=start + timedelta(minutes=1),
            requests=self.put, latency={80: self.put},
        )  # fmt: skip


class Storm:
    """Broker, manager and devices in one folder."""

    def __init__(self, folder: Path, *, devices: int, seed: int = 1) -> None:
        self._folder, self._chance = folder, random.Random(seed)
        self._outboxes = Path(tempfile.mkdtemp(prefix="flotilla-storm-", dir=MEMORY if MEMORY.is_dir() else None))
        self._port = _free_port()
        self._broker_url = f"mqtt://127.0.0.1:{self._port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._keys = {f"cam-{number:03}": Keys.make() for number in range(devices)}
        self._settings = FleetSettings.model_validate(
            {
                "data_dir": folder / "fleet",
                "server": {"port": 0},
                "mqtt": {
                    "url": self._broker_url,
                    "messages_per_second": 10**6,
                    "burst_messages": 10**6,
                    "require_signatures": True,
                },
                # What is measured here is the way into the database, not what is made of it afterwards.
                "drift_detection": {"detection_window_days": 1e-4, "baseline_window_days": 2},
            }
        )
        self._told, self._kills, self._began, self._seconds = 0, Counter[str](), 0.0, 0.0
        self._manager_bytes = 0

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "fleet").mkdir()
        chosen = self._settings.model_dump(mode="json", exclude_unset=True)
        (self._folder / "fleet.yaml").write_text(yaml.safe_dump(chosen))
        (self._folder / "mosquitto.conf").write_text(
            f"listener {self._port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\nset_tcp_nodelay true\n"
        )
        database = Database(self._settings.database_url)
        await database.open()
        async with database.write() as tx:
            for name, keys in self._keys.items():
                tx.add(
                    Device(
                        id=name, name=name, labels={}, sign_key=keys.sign_public, box_key=b"b" * 32, api_key_hash=name,
                        enrolled_at=START, slots=[], serving={}, lifecycle="active",
                    )
                )  # fmt: skip
        await database.close()
        self._start("broker")
        self._start("manager")
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._outboxes, ignore_errors=True)

    async def tell(self, *, records: int, broker_kills: int, manager_kills: int) -> None:
        """All devices together tell so many records; the kills are spread over the way there by chance.

        Raises:
            TimeoutError: nothing more arrives.
        """
        self._began = time.monotonic()
        each = -(-records // len(self._keys))
        self._told = each * len(self._keys)
        tellers = [Teller(name, keys, self._outboxes, self._broker_url) for name, keys in self._keys.items()]
        kills = ["broker"] * broker_kills + ["manager"] * manager_kills
        due = sorted((self._chance.uniform(0.02, 0.98) * self._told, name) for name in kills)
        running = [asyncio.create_task(teller.run(each)) for teller in tellers]
        try:
            await self._watch(running, due)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        self._seconds = time.monotonic() - self._began
        self._measure()

    async def _watch(self, running: list[asyncio.Task[None]], due: list[tuple[float, str]]) -> None:
        best, moved = -1, time.monotonic()
        while not all(task.done() for task in running):
            await asyncio.sleep(0.1)
            stored = self._stored()
            if stored > best:
                best, moved = stored, time.monotonic()
            if time.monotonic() - moved > PATIENCE_SECONDS:
                raise TimeoutError(f"{stored} of {self._told} are stored, nothing more comes: {self._log()}")
            while due and due[0][0] <= stored:
                await self._kill(due.pop(0)[1])
        for task in running:
            task.result()

    def _measure(self) -> None:
        status = Path(f"/proc/{self._processes['manager'].pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        self._manager_bytes = max(self._manager_bytes, 1024 * int(found[1]) if found else 0)

    async def _kill(self, name: str) -> None:
        process = self._processes[name]
        self._measure()
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        self._kills[name] += 1
        self._start(name)

    def _start(self, name: str) -> None:
        if name == "broker":
            command = [mosquitto() or "mosquitto", "-c", str(self._folder / "mosquitto.conf")]
        else:
            command = [sys.executable, "-m", "fleet", "run", "--config", str(self._folder / "fleet.yaml")]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _log(self) -> str:
        return (self._folder / "manager.log").read_text(errors="replace")[-2000:]

    def _stored(self) -> int:
        with contextlib.closing(self._open()) as database:
            return int(database.execute("SELECT coalesce(sum(durable), 0) FROM streams").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        path = self._settings.data_dir / "fleet.sqlite"
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)

    def found(self) -> Found:
        """Every record by what it says, beside what was told."""
        with contextlib.closing(self._open()) as database:
            rows = Counter(database.execute("SELECT device_id, requests FROM windows"))
        each = self._told // len(self._keys)
        wanted = {(name, number) for name in self._keys for number in range(1, each + 1)}
        doubled = sum(number - 1 for number in rows.values()) + len(rows.keys() - wanted)
        lost = len(wanted - rows.keys())
        return Found(self._told, rows.total(), lost, doubled, self._kills, self._seconds, self._manager_bytes)
