"""The fleet of the rollout tests, with schedules, aliases and a depot."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from fleet.api import aliases, schedules
from fleet.releases.director import Director
from fleet.releases.folder_depot import FolderDepot
from fleet.releases.online_keys import OnlineKeys
from fleet.schedules.driver import ScheduleDriver
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from tests.fleet.rollouts.conftest import World, application, sections
from tests.fleet.telemetry.conftest import either, postgres
from tests.simulators import databases

__all__ = ["either", "postgres", "sections"]
WINDOWS = ["windows", "keep-versions"]


@dataclass
class Later(World):
    depot: FolderDepot | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.schedules = ScheduleDriver(self)

    async def advance(self) -> None:
        """What the manager's tasks do by themselves, once around; devices that are online beat."""
        async with self.database.write() as tx:
            await tx.execute(update(tables.Device).where(tables.Device.online).values(seen_at=self.clock.at))
        await self.schedules.advance()
        await self.driver.advance()
        await self.schedules.advance()

    async def until(self, seconds: float) -> None:
        self.after(seconds)
        await self.advance()

    async def texts(self) -> list[str]:
        """Every line of the feed."""
        async with self.database.read() as tx:
            return list(await tx.scalars(select(tables.Event.text).order_by(tables.Event.sequence)))


@pytest.fixture
async def world(tmp_path: Path, sections: dict[str, Any]) -> AsyncIterator[Later]:
    settings = FleetSettings.model_validate({"data_dir": tmp_path, **sections})
    database = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await database.open()
    keys = OnlineKeys.open(tmp_path / "keys")
    made = Later(settings, database, Director(keys), keys)
    made.depot = FolderDepot(tmp_path / "depot")
    yield made
    await database.close()


@pytest.fixture
async def api(world: Later) -> AsyncIterator[httpx2.AsyncClient]:
    app = application(world)
    app.include_router(schedules.router)
    app.include_router(aliases.router)
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": "Bearer admin"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet/api/v1", headers=headers) as client:
        yield client


@pytest.fixture
async def either_world(tmp_path: Path, either: str) -> AsyncIterator[Later]:
    """On SQLite and on PostgreSQL."""
    database = Database(either)
    await database.open()
    keys = OnlineKeys.open(tmp_path / "keys")
    yield Later(FleetSettings(data_dir=tmp_path), database, Director(keys), keys)
    await database.close()


async def committed(world: Later, rollout: str, version: str = "2.0.0") -> None:
    """Every device that was told and has not ended reports success, until the rollout is over."""
    for _ in range(20):
        view = await world.view(rollout)
        if view.state not in ("running", "paused"):
            return
        for one in view.deployments:
            if one.touched and one.state == "queued":
                await world.report(one.device, rollout, "committed", version=version)
                await world.serve(one.device, version)
        await world.until(301)
    raise AssertionError(f"{rollout} does not end")


DAY = timedelta(days=1)
