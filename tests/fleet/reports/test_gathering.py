"""From stored sums to a report, over REST and the command line, with a real database."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.api.problems import NotFoundError
from fleet.reports.content import Report
from fleet.reports.errors import EmptyReportError
from fleet.reports.gathering import Wish
from fleet.reports.reporter import Reporter
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from shared.sketches import LATENCY_RATIO
from tests.fleet.telemetry.test_performance_driver import manifest
from tests.fleet.telemetry.world import T0, World
from tests.simulators import databases

SITES = {"cam-1": "north", "cam-2": "north", "cam-3": "south"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three devices on two sites; four days, of which the last one is brighter on cam-3."""
    found = World(FleetSettings(), Database(databases.sqlite(tmp_path / "fleet.sqlite")))
    await found.open()
    async with found.database.write() as tx:
        (await tx.get_one(tables.Release, ("digits", "1.0.0"))).manifest = manifest()
    for device, site in SITES.items():
        await found.device(device, site=site, hardware="orin")
    await found.device("cam-4", site="south", hardware="orin")  # says nothing
    for day in range(4):
        for device in SITES:
            mean = 0.62 if device == "cam-3" and day == 3 else 0.5
            labels = {"labelled": 200, "correct": 150, "confusion": [[0, 0, 150], [0, 1, 50]], "latency": {"120": 200}}
            await found.send(device, mean, samples=400, minutes=480, **labels)
    yield found
    await found.database.close()


async def made(world: World, scope: str = "fleet", days: float = 4, **more: Any) -> Report:
    now = world.clock.at + timedelta(minutes=1)
    wish = Wish(more.get("model", "digits"), more.get("version"), scope, now - timedelta(days=days), now)
    return await Reporter(world).report(wish)


LATENCY_MS = LATENCY_RATIO**120.5


async def test_a_report_says_what_moved_where_and_when(world: World) -> None:
    report = await made(world)
    assert (report.version, report.scope, len(report.columns)) == ("1.0.0", "fleet", 5)
    assert report.level == "act"
    assert "input.brightness" in report.headline
    sites, devices = report.strips
    assert [row.name for row in sites.rows] == ["south", "north"]
    assert devices.rows[0].name == "cam-3"
    assert devices.rows[0].cells[-1] == "critical"
    assert {cell for row in devices.rows[1:] for cell in row.cells} <= {"ok", "none", "few"}
    assert devices.rows[0].alarms
    assert {alert.scope for alert in report.alerts} >= {"device:cam-3"}
    assert [one.device for one in report.coverage.silent] == ["cam-4"]
    assert report.coverage.numbers[0].text == "3 of 4"

    # Counts are those that came.
    assert sum(report.features[0].live) == 12 * 400
    assert sum(point.samples for point in report.features[0].timeline) == 12 * 400
    last_day = await made(world, days=0.9)
    assert last_day.column_seconds == 3600
    assert sum(last_day.features[0].live) == 3 * 400


async def test_a_site_or_a_device_is_told_alone(world: World) -> None:
    north = await made(world, "site:north")
    assert [one.level for one in north.features] == ["good"]
    assert north.alerts == ()
    assert {row.name for row in north.strips[0].rows} == {"cam-1", "cam-2"}
    device = await made(world, "device:cam-3")
    assert device.level == "act"
    assert any(point.alarm for point in device.features[0].timeline)
    assert sum(device.features[0].live) == 4 * 400

    # Performance comes from the same time and devices.
    figures = {one.metric: one for one in (await made(world)).performance.figures}
    assert figures["accuracy"].value == pytest.approx(0.75)
    assert figures["accuracy"].samples == 12 * 200
    assert (figures["accuracy"].reference, figures["accuracy"].state) == (0.95, "worse")
    assert figures["latency"].value == pytest.approx(LATENCY_MS, rel=0.02)
    short = {one.metric: one for one in (await made(world, days=0.9)).performance.figures}
    assert short["latency"].reference == pytest.approx(LATENCY_MS, rel=0.02)
    assert short["latency"].state == "ok"


async def test_what_nobody_can_report_on_is_said_to_be_so(world: World) -> None:
    with pytest.raises(NotFoundError, match="no model"):
        await made(world, model="faces")
    with pytest.raises(NotFoundError, match=r"digits@9\.9\.9"):
        await made(world, version="9.9.9")
    with pytest.raises(NotFoundError, match="no device"):
        await made(world, "device:cam-9")
    with pytest.raises(NotFoundError, match="site"):
        await made(world, "site:east")
    with pytest.raises(EmptyReportError, match=r"nothing of digits@2\.0\.0"):
        await made(world, version="2.0.0")

    # A hostile name is only text; a release without reference data has nothing to compare.
    async with world.database.write() as tx:
        (await tx.get_one(tables.Device, "cam-3")).site = "</style><script>"
        (await tx.get_one(tables.Release, ("digits", "2.0.0"))).baseline = {}
    page = await Reporter(world).file(Wish("digits", None, "fleet", T0, world.clock.at), "html")
    assert b"<script" not in page
    assert json.loads(await Reporter(world).file(Wish("digits", None, "fleet", T0, world.clock.at), "json"))["strips"]
    with pytest.raises(EmptyReportError, match="without reference data"):
        await made(world, version="2.0.0")
