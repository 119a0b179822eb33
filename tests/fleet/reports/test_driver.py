"""Reports that the manager writes by itself."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fleet.reports.driver import ReportDriver
from fleet.reports.folder import Folder
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from tests.fleet.telemetry.test_performance_driver import manifest
from tests.fleet.telemetry.world import World
from tests.simulators import databases


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes a world with an open drift alert, for these settings."""
    worlds: list[World] = []

    async def make(**drift: Any) -> World:
        settings = FleetSettings.model_validate({"data_dir": tmp_path / "data", "drift_detection": drift})
        world = World(settings, Database(databases.sqlite(tmp_path / "fleet.sqlite")))
        worlds.append(world)
        await world.open()
        async with world.database.write() as tx:
            (await tx.get_one(tables.Release, ("digits", "1.0.0"))).manifest = manifest()
        await world.device("cam-1")
        for _ in range(3):
            await world.send("cam-1", 0.65, samples=400, minutes=70)
        assert len(await world.alerts()) == 1
        return world

    yield make
    for world in worlds:
        await world.database.close()


def content(path: Path) -> bytes:
    return path.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


async def test_an_alert_gets_a_page_and_a_plot_and_names_the_page(opened: Any, tmp_path: Path) -> None:
    world = await opened()
    await ReportDriver(world).evaluate()
    (alert,) = await world.alerts()
    page = Path(alert.body["report"])
    assert page == tmp_path / "data" / "reports" / f"drift-alert-{alert.id}.html"
    assert b"input.brightness" in content(page)
    assert content(page.with_suffix(".svg")).lstrip().startswith(b"<svg xmlns=")
    day = f"drift-{world.clock.at:%Y%m%d}-digits-1.0.0"
    assert names(page.parent) == [f"{day}.html", f"{day}.svg", f"{page.stem}.html", f"{page.stem}.svg"]

    # Nothing is written twice, and the alert keeps its file when its numbers change.
    driver = ReportDriver(world)
    before = {path: path.stat().st_mtime_ns for path in page.parent.iterdir()}
    await world.send("cam-1", 0.7, samples=400, minutes=70)
    await driver.evaluate()
    await ReportDriver(world).evaluate()  # after a restart
    assert (await world.alerts())[0].body["report"] == str(page)
    assert {path: path.stat().st_mtime_ns for path in page.parent.iterdir()} == before
    world.clock.at += timedelta(days=1)
    await driver.evaluate()
    assert len(names(page.parent)) == 6


async def test_switched_off_nothing_is_written(opened: Any, tmp_path: Path) -> None:
    world = await opened(enable_visualization=False)
    await ReportDriver(world).evaluate()
    assert names(tmp_path / "data" / "reports") == []
    assert "report" not in (await world.alerts())[0].body


async def test_output_dir_that_fails_is_told_once_and_made_good_later(opened: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    world = await opened(output_dir=str(blocked / "reports"))
    driver = ReportDriver(world)
    await driver.evaluate()
    await driver.evaluate()
    async with world.database.read() as tx:
        told = [it for it in await tx.scalars(select(tables.Event)) if "cannot be written" in it.text]
    assert len(told) == 1
    assert "report" not in (await world.alerts())[0].body
    blocked.unlink()
    await driver.evaluate()
    assert content(Path((await world.alerts())[0].body["report"]))
    assert len(names(blocked / "reports")) == 4
    assert names(tmp_path / "data" / "reports") == []


def test_only_so_many_files_are_kept_and_those_of_others_are_left_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "reports", keep=2)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.txt").write_text("x")
    for number in range(4):
        folder.write({f"drift-{number}.html": b"x"})
        os.utime(tmp_path / "reports" / f"drift-{number}.html", (number, number))
    folder.prune()
    assert names(tmp_path / "reports") == ["drift-2.html", "drift-3.html", "mine.txt"]
