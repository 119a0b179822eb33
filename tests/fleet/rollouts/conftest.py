"""A fleet whose devices do what the test says: real database, real director, real routes; only the broker is a list."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fleet.access.roles import Actor
from fleet.api import alerts, baselines, drift, rollouts
from fleet.api.problems import Problem, of_error
from fleet.hub import Hub
from fleet.releases.director import Director
from fleet.releases.online_keys import OnlineKeys
from fleet.rollouts import reading
from fleet.rollouts.driver import RolloutDriver
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry import heard
from fleet.telemetry.driver import DriftDriver
from fleet.telemetry.figures import Standings
from shared import signing, sketches
from shared.errors import FlotillaError
from shared.messages import UpdateReport
from tests.simulators import databases

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class ManualClock:
    at: datetime = T0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - T0).total_seconds()


@dataclass
class Announced:
    devices: list[str] = field(default_factory=list)

    async def announce(self, device_id: str) -> None:
        self.devices.append(device_id)


@dataclass
class World:
    settings: FleetSettings
    database: Database
    director: Director
    keys: OnlineKeys
    clock: ManualClock = field(default_factory=ManualClock)
    hub: Hub = field(default_factory=Hub)
    announcer: Announced = field(default_factory=Announced)
    standings: Standings = field(default_factory=Standings)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.driver = RolloutDriver(self)
        self.drift = DriftDriver(self)

    def after(self, seconds: float) -> None:
        self.clock.at += timedelta(seconds=seconds)

    async def device(self, name: str, serving: str | None = "1.0.0", **more: Any) -> None:
        row = tables.Device(
            id=name,
            name=name,
            labels={},
            sign_key=b"s" * 32,
            box_key=bytes(signing.PrivateKey.generate().public_key),
            api_key_hash="",
            enrolled_at=T0,
            slots=[],
            serving={"digits": serving} if serving else {},
            online=True,
            seen_at=self.clock.at,
        )
        for key, value in more.items():
            setattr(row, key, value)
        async with self.database.write() as tx:
            tx.add(row)

    async def release(self, version: str, baseline: sketches.Baseline | None = None) -> None:
        counter = int(version.replace(".", ""))
        escrow = base64.b64decode(self.keys.escrow_public())
        async with self.database.write() as tx:
            tx.add(
                tables.Release(
                    model="digits",
                    version=version,
                    counter=counter,
                    manifest_digest=f"{counter:064d}",
                    manifest=b"{}",
                    escrow_key=signing.seal(b"k" * 32, escrow),
                    baseline=baseline.model_dump(mode="json") if baseline else {},
                    published_by="ana",
                    published_at=T0,
                )
            )

    async def serve(self, name: str, version: str) -> None:
        async with self.database.write() as tx:
            (await tx.get_one(tables.Device, name)).serving = {"digits": version}

    async def report(self, name: str, rollout: str, phase: str, **more: Any) -> None:
        """What the device says of its newest assignment, through the manager's own hearing."""
        self.sequence += 1
        async with self.database.write() as tx:
            device = await tx.get_one(tables.Device, name)
            device.seen_at = self.clock.at
            said = {"assignment": device.assignment, "model": "digits", "rollout": rollout, "phase": phase, **more}
            message = UpdateReport(device=name, stream="s", sequence=self.sequence, at=T0, **said)
            await heard.report(tx, message, now=self.clock.at)

    async def view(self, rollout: str) -> Any:
        async with self.database.read() as tx:
            return await reading.rollout_view(tx, rollout, self.clock.at)

    async def assigned(self, name: str) -> tuple[int, str]:
        async with self.database.read() as tx:
            device = await tx.get_one(tables.Device, name)
            return device.assignment, device.assigned or ""


class Gate:
    """Stands for the manager's own gate: the bearer token is the role, or `ROLE NAME PERSON`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            said = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            role, name, person = said.split() if " " in said else (said, "ana", "")
            scope["flotilla.actor"] = Actor(name, role, "r-1", person) if role else None
            scope["flotilla.request_id"] = "r-1"
        await self._app(scope, receive, send)


def application(world: World) -> FastAPI:
    app = FastAPI()
    app.state.manager = world
    for module in (rollouts, alerts, drift, baselines):
        app.include_router(module.router)

    async def told(_request: Request, error: Exception) -> JSONResponse:
        problem = error if isinstance(error, Problem) else of_error(error)
        return JSONResponse(problem.document("r-1"), problem.status)

    app.add_exception_handler(Problem, told)
    app.add_exception_handler(FlotillaError, told)
    app.add_middleware(Gate)
    return app


@pytest.fixture
def sections() -> dict[str, Any]:
    """Sections of the settings; tests may override it."""
    return {}


@pytest.fixture
async def world(tmp_path: Path, sections: dict[str, Any]) -> AsyncIterator[World]:
    settings = FleetSettings.model_validate({"data_dir": tmp_path, **sections})
    database = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await database.open()
    keys = OnlineKeys.open(tmp_path / "keys")
    yield World(settings, database, Director(keys), keys)
    await database.close()


@pytest.fixture
async def api(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=application(world))
    headers = {"Authorization": "Bearer admin"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet/api/v1", headers=headers) as client:
        yield client
