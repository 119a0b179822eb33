"""A manager with a real database and the real application, and a world to fill it with."""

import contextlib
import itertools
import math
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
import pytest
import uvicorn

from fleet.access.identify import Doorman, Limits
from fleet.access.secrets import Pepper
from fleet.access.sign_in import SignIns
from fleet.api.app import create_app
from fleet.daemon import Manager
from fleet.devices.liveness import Patience
from fleet.hub import Hub
from fleet.leadership import Leadership
from fleet.rollouts import saved
from fleet.rollouts.states import Rollout, State, Wave
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry.rate import Buckets
from shared.clock import SystemClock
from shared.sketches import latency_bin
from tests.simulators import databases

SITES = (("Library North", 9), ("Science Quad", 10), ("Stadium", 8), ("Main Gate", 6), ("Parking P2", 8), ("Hall", 7))
BOARDS = ("orin-nano-8g", "orin-nx-16g", "xavier-nx", "agx-orin")
MODEL = "person-detector"


@dataclass
class World:
    """The rows that a fleet leaves behind. Times are relative to the moment it was made."""

    manager: Manager
    tokens: dict[str, str]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def before(self, seconds: float) -> datetime:
        return self.now - timedelta(seconds=seconds)

    def device(self, device_id: str, **more: Any) -> tables.Device:
        slots = [
            {"slot": "a", "state": "good", "model": MODEL, "version": "2.4.0"},
            {"slot": "b", "state": "good", "model": MODEL, "version": "2.3.2"},
        ]
        given: dict[str, Any] = {
            "id": device_id, "name": device_id, "site": "Stadium", "labels": {}, "hardware": "x86_64",
            "lifecycle": "active",
            "sign_key": b"s" * 32, "box_key": b"b" * 32, "api_key_hash": device_id, "enrolled_at": self.before(86400),
            "online": True, "seen_at": self.before(2), "slots": slots, "serving": {MODEL: "2.4.0"},
        }  # fmt: skip
        return tables.Device(**{**given, **more})

    def window(
        self, device: str, sequence: int, *, version: str = "2.4.0", ms: float = 30.0, **more: Any
    ) -> tables.Window:
        """Window `sequence` of 100, ten seconds each; the last one ends now."""
        end = self.before(10 * (100 - sequence))
        bins: dict[int, int] = {}
        for _ in range(60):
            place = latency_bin(max(0.2, self.dice.gauss(ms * 0.8, ms * 0.1)))
            bins[place] = bins.get(place, 0) + 1
        body = {
            "latency": {str(key): number for key, number in bins.items()},
            "host": {"cpu_ratio": 0.4, "temperature_celsius": 51.0},
            "restarts": 0,
            **more.pop("body", {}),
        }
        full = {
            "type": "telemetry-window/1", "device": device, "stream": "s1", "sequence": sequence, "at": end.isoformat(),
            "boot": "b1", "model": MODEL, "version": version, "manifest": "0" * 64, "phase": "serving",
            "start": (end - timedelta(seconds=10)).isoformat(), "end": end.isoformat(), "requests": 60, **body,
        }  # fmt: skip
        given: dict[str, Any] = {
            "device_id": device, "stream": "s1", "sequence": sequence, "model": MODEL, "version": version,
            "start": end - timedelta(seconds=10), "end": end, "received_at": end, "requests": 60, "failed": 0,
        }  # fmt: skip
        return tables.Window(**{**given, **more, "body": full})

    def drift(self, scope: str, version: str, feature: str, psi: float, state: str = "ok") -> tables.DriftState:
        edges = [i / 16 for i in range(1, 18)] if feature.startswith("input") else [0.5 + i for i in range(9)]
        kind = "quantity" if feature.startswith("input") else "category"
        shape = [math.exp(-(((i - len(edges) / 2) / 4) ** 2)) for i in range(len(edges) + 1)]
        moved = [math.exp(-(((i - len(edges) / 2 - 8 * psi) / 4) ** 2)) for i in range(len(edges) + 1)]
        body = {
            "psi": psi + 0.01, "psi_corrected": psi, "ks": 0.031, "jsd": 0.002, "kl": 0.02, "p": 0.41, "edges": edges,
            "kind": kind, "reference": [int(5000 * x) for x in shape], "counts": [int(1800 * x) for x in moved],
            "text": "as usual", "group": "input", "history": [psi] * 5,
        }  # fmt: skip
        return tables.DriftState(
            scope=scope, model=MODEL, version=version, feature=feature, state=state, samples=18402, body=body,
            since=self.before(600), updated_at=self.before(5),
        )  # fmt: skip

    def event(self, age: float, level: str, subject: str, text: str, rollout: str | None = None) -> tables.Event:
        return tables.Event(
            at=self.before(age), kind="device", level=level, subject=subject, rollout_id=rollout, text=text
        )

    def alert(self, name: str, severity: str, scope: str, text: str, kind: str = "drift") -> tables.Alert:
        return tables.Alert(
            id=name, kind=kind, scope=scope, subject=f"{MODEL}@2.4.0", severity=severity, state="open", text=text,
            body={}, opened_at=self.before(312), updated_at=self.before(10),
        )  # fmt: skip

    def release(self, version: str, counter: int) -> tables.Release:
        return tables.Release(
            model=MODEL, version=version, counter=counter, manifest_digest=f"{counter:064x}", manifest=b"{}",
            escrow_key="k", baseline={}, published_by="m.okafor", published_at=self.before(9000),
        )  # fmt: skip

    def rollout(self, state: State = State.RUNNING, reason: str | None = None, **more: Any) -> tables.Rollout:
        waves = (
            Wave("Canary", "5 %", 3),
            Wave("Early", "25 %", 9),
            Wave("Half", "50 %", 12),
            Wave("Fleet", "100 %", 22),
        )
        body = Rollout(
            id="ro-7f3k", model=MODEL, version="2.5.0", strategy="canary", waves=more.pop("waves", waves),
            since=self.before(900), state=state, reason=reason, wave=more.pop("wave", 1), bake_seconds=1800,
            auto_rollback=True, **more,
        )  # fmt: skip
        return tables.Rollout(
            id=body.id, model=MODEL, version="2.5.0", strategy="canary", state=str(state), reason=reason,
            body=saved.to_json(body), created_by="m.okafor", created_at=self.before(2950), updated_at=self.before(5),
        )  # fmt: skip

    def deployment(self, device: str, wave: int, state: str, **more: Any) -> tables.Deployment:
        told = None if state == "queued" and wave > 1 else self.before(700)
        given: dict[str, Any] = {
            "rollout_id": "ro-7f3k", "device_id": device, "wave": wave, "state": state, "since": self.before(47),
            "previous": "2.4.0", "assignment": 1, "told_at": told,
        }  # fmt: skip
        return tables.Deployment(**{**given, **more})

    async def add(self, *rows: Any) -> None:
        """Store rows, parents first, and say so."""
        async with self.manager.database.write() as tx:
            for _, alike in itertools.groupby(rows, type):
                tx.add_all(alike)
                await tx.flush()
        self.manager.hub.wake()

    async def campus(self) -> None:
        """48 cameras on 6 sites in the middle of a rollout."""
        names = [(f"cam-{n:03d}", site) for n, site in enumerate((s for s, count in SITES for _ in range(count)), 1)]
        odd: dict[str, dict[str, Any]] = {
            "cam-044": {"online": False, "seen_at": self.before(2520)},
            "cam-020": {"online": False, "seen_at": self.before(10900)},
        }
        order = [name for name, _ in names if name not in odd]
        self.dice.shuffle(order)
        new = set(order[:7])
        rows: list[Any] = [self.release("2.3.2", 1), self.release("2.4.0", 2), self.release("2.5.0", 3)]
        for name, site in names:
            more = {"site": site, "hardware": self.dice.choice(BOARDS), **odd.get(name, {})}
            if name in new:
                more["serving"] = {MODEL: "2.5.0"}
                more["slots"] = [
                    {"slot": "a", "state": "good", "model": MODEL, "version": "2.4.0"},
                    {"slot": "b", "state": "good", "model": MODEL, "version": "2.5.0"},
                ]
            elif name in ("cam-005", "cam-041"):
                more["serving"] = {MODEL: "2.3.2"}
            rows.append(self.device(name, **more))
        rows.append(self.rollout())
        phases = [(0, "committed")] * 3 + [(1, "committed")] * 4
        phases += [(1, "probation"), (1, "staged"), (1, "fetching"), (1, "fetching"), (1, "queued")]
        phases += [(2, "queued")] * 12 + [(3, "queued")] * 22
        for name, (wave, state) in zip(order, phases, strict=True):
            sizes = {"fetched_bytes": 8_208_000 + wave * 10, "total_bytes": 11_400_000} if state == "fetching" else {}
            rows.append(self.deployment(name, wave, state, **sizes))
        for name, _ in names:
            base = self.dice.choice((14.0, 22.0, 31.0, 38.0))
            temperature = 84.0 if name == "cam-012" else self.dice.uniform(46, 61)
            for sequence in range(60, 101) if name not in odd else range(0):
                fresh = name in new and sequence > 75
                host = {"cpu_ratio": self.dice.uniform(0.3, 0.75), "temperature_celsius": temperature}
                ms = base * (0.86 if fresh else 1.0) + self.dice.gauss(0, 1.2)
                version = "2.5.0" if fresh else "2.4.0"
                rows.append(self.window(name, sequence, version=version, ms=ms, body={"host": host}))
            version = "2.5.0" if name in new else "2.4.0"
            psi = {"cam-031": 0.31, "cam-027": 0.17}.get(name, abs(self.dice.gauss(0.05, 0.02)))
            state = "drifted" if psi > 0.2 else "warning" if psi > 0.15 else "ok"
            rows.append(self.drift(f"device:{name}", version, "input.brightness", psi, state))
        rows += [
            self.drift("fleet", "2.5.0", "input.brightness", 0.06),
            self.drift("fleet", "2.5.0", "input.contrast", 0.03),
            self.drift("fleet", "2.5.0", "class.predicted", 0.02),
            self.alert("al-1", "critical", "device:cam-031", "input.brightness moved, darker: PSI 0.31, limit 0.20"),
            self.alert("al-2", "medium", "device:cam-027", "input.brightness rises: PSI 0.17, limit 0.20"),
            self.alert(
                "al-3", "low", "device:cam-012", "latency p95 41 ms, 30 % above its own baseline", "performance"
            ),
            self.event(2950, "info", "ro-7f3k", "ro-7f3k started: person-detector 2.4.0 → 2.5.0", "ro-7f3k"),
            self.event(2944, "info", "ro-7f3k", "wave 1 (Canary): 3 devices", "ro-7f3k"),
            self.event(2710, "ok", "ro-7f3k", "wave 1: 3/3 healthy, bake 30 min begins", "ro-7f3k"),
            self.event(910, "ok", "ro-7f3k", "wave 1: gates passed, wave 2 (Early) begins with 9 devices", "ro-7f3k"),
            self.event(640, "warn", "cam-012", "latency p95 41 ms, 30 % above its own baseline"),
            self.event(312, "crit", "cam-031", "drift alert: brightness PSI 0.31, limit 0.20, on 2.4.0"),
            self.event(60, "info", order[8], "2.5.0 staged: signature and every chunk checked", "ro-7f3k"),
        ]
        await self.add(*rows)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await database.open()
    pepper, now = Pepper(b"p" * 32), datetime.now(UTC)
    unused = cast(Any, None)
    leadership = Leadership(database, Database("sqlite+aiosqlite://"), host="fleet", url="http://fleet", keys="k")
    manager = Manager(
        leadership=leadership,
        settings=FleetSettings(data_dir=tmp_path), database=database, clock=SystemClock(), hub=Hub(), pepper=pepper,
        doorman=Doorman(database, pepper, Limits(timedelta(minutes=30), timedelta(hours=12))), depot=unused,
        repository=unused, director=unused, online_keys=unused, link=unused, announcer=unused, ingest=unused,
        courier=unused, peers=unused,
        patience=Patience(timedelta(seconds=60), now - timedelta(days=1)), enrolments=Buckets(rate=1, burst=60),
        knocks=Buckets(rate=1, burst=60), sign_ins=SignIns(database, pepper, SystemClock()), cut_off=lambda _: None,
        manager_url="http://fleet.campus:8420", mqtt_url="",
    )  # fmt: skip
    tokens = {role: f"flt_{role}" for role in ("viewer", "operator", "releaser")}
    made = World(manager, tokens)
    await made.add(
        *(
            tables.Token(id=f"to-{role}", name="m.okafor", role=role, token_hash=pepper.digest(text), created_at=now)
            for role, text in tokens.items()
        )
    )
    try:
        yield made
    finally:
        await database.close()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """An operator's client in front of the application."""
    transport = httpx2.ASGITransport(app=create_app(world.manager))
    headers = {"Authorization": f"Bearer {world.tokens['operator']}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet", headers=headers) as made:
        yield made


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    """The application behind a real socket."""
    door = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(world.manager), lifespan="off", log_level="error", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [door])
        with anyio.fail_after(10):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await anyio.sleep(0.01)
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        server.should_exit = True
