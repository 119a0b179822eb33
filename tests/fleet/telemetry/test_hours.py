"""Windows in the hour they belong to, days and restarts, groups of devices; on SQLite and on PostgreSQL."""

import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, select

from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry.driver import DriftDriver
from tests.fleet.telemetry.world import World

HOUR = timedelta(hours=1)


async def feed(world: World, devices: dict[str, float], hours: int, *, looks: int = 1, samples: int = 42) -> None:
    """Counts of the next `hours`; every so many of them somebody looks (`looks` of them in all, the last one too)."""
    for hour in range(hours):
        world.clock.at += HOUR
        for device, mean in devices.items():
            await world.deliver(device, mean, samples, world.clock.at - HOUR / 2)
        if (hour + 1) % (hours // looks) == 0:
            await world.driver.evaluate()


async def stored(world: World, span: str) -> int:
    async with world.database.read() as tx:
        query = select(func.count()).select_from(tables.Sketch).where(tables.Sketch.span == span)
        return await tx.scalar(query) or 0


async def test_a_backlog_of_seven_days_in_one_go_raises_no_alarm_and_lies_in_its_hours(days: World) -> None:
    end = days.clock.at + timedelta(days=7)
    for hour in reversed(range(168)):  # the newest first: order does not matter
        days.clock.at = end
        await days.deliver("cam-1", 0.5, 60, end - (hour + 0.5) * HOUR)
    await days.driver.evaluate()
    assert await days.alerts() == []
    row = await days.state("device:cam-1")
    assert row is not None
    assert row.samples == 23 * 60  # the newest of the 24 hours has just begun
    assert (await stored(days, "hour"), days.driver.misplaced) == (168, 0)
    assert await stored(days, "day") in (7, 8)


async def test_no_look_reads_the_whole_table_of_windows_or_of_sums(world: World) -> None:
    await feed(world, {"cam-1": 0.5}, 30, looks=3)
    engine, plans = world.database._opened().sync_engine, []

    def explain(connection: Any, cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values[0] if many else values)
            plans.extend((row[3], statement) for row in cursor.fetchall())

    event.listen(engine, "before_cursor_execute", explain)
    await feed(world, {"cam-1": 0.5}, 2, looks=2)
    assert any("windows" in plan for plan, _ in plans)
    assert any("sketches" in plan for plan, _ in plans)
    assert [it for it in plans if re.match("SCAN (windows|sketches)", it[0])] == []


async def test_a_restart_after_days_changes_no_number(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 60, looks=2)
    before = await days.state("device:cam-1")
    days.driver = DriftDriver(days)
    await days.driver.evaluate()
    after = await days.state("device:cam-1")
    assert before is not None
    assert after is not None
    for key in ("psi", "chi2", "calibrated_p", "dispersion", "counts", "floor"):
        assert after.body[key] == before.body[key], key
    assert (after.state, after.since) == (before.state, before.since)


async def test_half_a_sigma_is_found_within_hours_and_closes_a_day_after_it_ended(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 48)
    assert await days.alerts() == []
    hours = 0
    while not await days.alerts():
        await feed(days, {"cam-1": 0.55}, 1)
        hours += 1
    assert hours <= 8
    (alert,) = await days.alerts()
    assert alert.body["test"] == "moved"
    await feed(days, {"cam-1": 0.55}, 6, looks=3)
    (alert,) = await days.alerts()
    assert alert.body["persisting"]
    back = 0
    while await days.alerts():
        await feed(days, {"cam-1": 0.5}, 2)
        back += 2
    assert 12 <= back <= 32
    await feed(days, {"cam-1": 0.5}, 30, looks=5)
    assert await days.alerts() == []  # longer windows still hold the drift, and it is not told twice


async def test_a_clock_that_cannot_be_right_counts_where_it_arrives(days: World) -> None:
    days.clock.at += timedelta(days=30)
    await days.deliver("cam-1", 0.5, 150, datetime.fromisoformat("1970-01-01T00:00:10+00:00"))
    await days.deliver("cam-1", 0.5, 150, days.clock.at + timedelta(days=2))
    await days.driver.evaluate()
    row = await days.state("device:cam-1")
    assert row is not None
    assert (row.samples, days.driver.misplaced) == (300, 2)


async def test_old_windows_and_sums_are_removed_and_verdicts_stay(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 30)
    days.clock.at += timedelta(days=31)
    await days.driver.evaluate()
    async with days.database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(tables.Window)) == 0
    assert (await stored(days, "hour"), await stored(days, "day")) == (0, 2)
    days.clock.at += timedelta(days=401)
    await days.driver.evaluate()
    assert await stored(days, "day") == 0
    assert await days.state("device:cam-1") is not None


async def test_settings_say_how_long_windows_are_kept(world: World, tmp_path: object) -> None:
    short = {"drift_detection": {"window_retention_days": 0.5}}
    kept = World(FleetSettings.model_validate(short), Database(f"sqlite+aiosqlite:///{tmp_path}/short.sqlite"))
    await kept.open()
    await kept.device("cam-1")
    await feed(kept, {"cam-1": 0.5}, 1)
    kept.clock.at += timedelta(hours=13)
    await kept.driver.evaluate()
    async with kept.database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(tables.Window)) == 0
    await kept.database.close()


async def test_a_site_that_drifts_has_one_alert_for_all_its_devices(days: World) -> None:
    names = [("cam-2", "east"), ("cam-3", "east"), ("cam-4", "west"), ("cam-5", "west"), ("cam-6", "west")]
    for name, site in names:
        await days.device(name, site=site, hardware="orin")
    await feed(days, dict.fromkeys((name for name, _ in names), 0.5), 12)
    await feed(days, {name: 0.57 if site == "east" else 0.5 for name, site in names}, 12, looks=3)
    assert {alert.scope for alert in await days.alerts()} == {"site:east"}
    (alert,) = await days.alerts()
    assert "on site east" in alert.text


@pytest.mark.parametrize("seed", [7, 22])  # at 22 the rest of the fleet is beside its reference, too, by chance
async def test_one_bad_device_is_no_matter_of_the_whole_fleet(days: World, seed: int) -> None:
    days.rng = np.random.default_rng(seed)
    names = [f"cam-{number}" for number in range(1, 7)]
    for name in names[1:]:
        await days.device(name)
    await feed(days, dict.fromkeys(names, 0.5), 12)
    await feed(days, dict.fromkeys(names, 0.5) | {"cam-3": 0.8}, 12, looks=2)
    assert (fleet := await days.state("fleet")) is not None
    assert fleet.state == "drifted"  # its sum has moved, by one device
    assert [alert.scope for alert in await days.alerts()] == ["device:cam-3"]


async def test_the_number_of_ordinary_days_is_a_setting(days: World) -> None:
    def of(number: int) -> World:
        chosen = {"baseline_window_days": number, "enable_statistical_tests": False}
        settings = FleetSettings.model_validate({"drift_detection": chosen})
        return World(settings, days.database, days.clock, sequence=days.sequence)

    week = of(7)
    for mean in (0.48, 0.5, 0.52, 0.5):  # no two days are alike
        await feed(week, {"cam-1": mean}, 24)
    learned = await days.state("device:cam-1")
    await of(2).driver.evaluate()
    other = await days.state("device:cam-1")
    assert learned is not None
    assert other is not None
    assert learned.body["dispersion"][0] > 5
    assert other.body["dispersion"] == [1.0, 1.0, 1.0]  # two days are too few to tell


async def test_a_sensor_that_gives_nothing_but_missing_values_is_critical(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 12)
    for _ in range(4):
        days.clock.at += HOUR
        await days.deliver("cam-1", 0.5, 0, days.clock.at - HOUR / 2, missing=60)
    await days.driver.evaluate()
    (alert,) = await days.alerts()
    assert (alert.body["test"], alert.severity) == ("missing", "critical")
    days.clock.at += 24 * HOUR
    await days.deliver("cam-1", 0.5, 0, days.clock.at - HOUR / 2, missing=60)
    await days.driver.evaluate()
    assert (await days.alerts())[0].id == alert.id
    row = await days.state("device:cam-1")
    assert row is not None
    assert (row.state, row.samples, row.body["missing"]) == ("drifted", 0, 60)


async def test_missing_values_raise_an_alarm_of_their_own(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 12)
    for _ in range(6):
        days.clock.at += HOUR
        await days.deliver("cam-1", 0.5, 42, days.clock.at - HOUR / 2, missing=20)
        await days.driver.evaluate()
    (alert,) = await days.alerts()
    assert alert.body["test"] == "missing"
    assert "more missing values" in alert.text
