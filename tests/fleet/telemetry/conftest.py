"""A world for each test, on SQLite or on a real PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fleet.settings import FleetSettings
from fleet.store.database import Database
from tests.fleet.telemetry.world import World
from tests.simulators import databases, postgresql


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    with postgresql.server() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of both kinds in turn."""
    if request.param == "sqlite":
        return databases.sqlite(tmp_path / "fleet.sqlite")
    folder, name = request.getfixturevalue("postgres"), f"test_{abs(hash(request.node.nodeid))}"
    return await databases.on_postgresql(folder, name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One device; a day is an hour, so an hour is two and a half minutes."""
    window = {"detection_window_days": 1 / 24}
    database = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    found = World(FleetSettings.model_validate({"drift_detection": window}), database)
    await found.open()
    await found.device("cam-1")
    yield found
    await database.close()


@pytest.fixture
async def days(either: str) -> AsyncIterator[World]:
    """One device; hours are hours."""
    found = World(FleetSettings(), Database(either))
    await found.open()
    await found.device("cam-1")
    yield found
    await found.database.close()
