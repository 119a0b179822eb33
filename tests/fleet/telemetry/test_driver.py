"""Windows in, verdicts and alerts out, with a real database and a clock that the test turns."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from fleet.alerts import desk
from fleet.store import tables
from fleet.telemetry.driver import DriftDriver
from tests.fleet.telemetry.world import World


async def test_collecting_then_ok_then_drifted_with_one_alert(world: World) -> None:
    await world.send("cam-1", 0.5, samples=40)
    row = await world.state("device:cam-1")
    assert row is not None
    assert (row.state, row.samples, row.body["text"]) == (
        "collecting", 40,
        "input.brightness: collecting (40 of 100); insufficient data: smallest detectable PSI = 1.26",
    )  # fmt: skip
    await world.send("cam-1", 0.5)
    assert (row := await world.state("device:cam-1")) is not None
    assert row.state == "ok"
    for _ in range(4):
        await world.send("cam-1", 0.3)
    (alert,) = await world.alerts()
    assert (alert.scope, alert.subject) == ("device:cam-1", "digits@1.0.0 input.brightness")
    assert alert.severity == "critical"
    assert alert.body["feature"] == "input.brightness"
    assert alert.body["psi"] >= 0.2
    assert "darker than the reference" in alert.text
    assert (row := await world.state("device:cam-1")) is not None
    assert sum(row.body["counts"]) == row.samples == 1040
    assert len(row.body["history"]) == 6


async def test_a_restart_changes_no_verdict_and_opens_nothing_twice(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    before = await world.state("device:cam-1")
    world.driver = DriftDriver(world)
    await world.driver.evaluate()
    after = await world.state("device:cam-1")
    assert before is not None
    assert after is not None
    assert (after.state, after.samples, after.since) == (before.state, before.samples, before.since)
    assert after.body["psi"] == before.body["psi"]
    assert len(await world.alerts()) == 1


async def test_an_alert_resolves_when_a_whole_window_is_quiet_and_not_before(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3, minutes=10)
    for _ in range(3):
        await world.send("cam-1", 0.5, minutes=10)
    assert len(await world.alerts()) == 1
    for _ in range(5):
        await world.send("cam-1", 0.5, minutes=10)
    assert await world.alerts() == []
    async with world.database.read() as tx:
        (alert,) = (await tx.scalars(select(tables.Alert))).all()
    assert (alert.state, alert.note) == ("resolved", "back to the reference")


async def test_silence_is_no_proof_that_drift_is_over(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    world.clock.at += timedelta(hours=3)
    await world.driver.evaluate()
    assert len(await world.alerts()) == 1


async def test_where_every_device_drifts_there_is_one_alert_for_the_fleet(world: World) -> None:
    await world.device("cam-2")
    await world.send("cam-2", 0.5)
    await world.send("cam-1", 0.3)
    assert [alert.scope for alert in await world.alerts()] == ["device:cam-1"]
    for _ in range(4):
        await world.send("cam-2", 0.3)
    await world.send("cam-1", 0.3)
    assert [alert.scope for alert in await world.alerts()] == ["fleet"]


async def test_counts_over_other_bins_are_refused_and_counted(world: World) -> None:
    await world.send("cam-1", 0.3, features={"input.brightness": {"edges": "f" * 16, "counts": [1, 2]}})
    assert await world.state("device:cam-1") is None
    assert world.driver.refused == 1


async def test_what_is_known_of_a_version_ends_with_its_service(world: World) -> None:
    await world.serve("cam-1", "2.0.0")
    for _ in range(3):
        await world.send("cam-1", 0.3, version="2.0.0")
    assert [alert.body["version"] for alert in await world.alerts()] == ["2.0.0"]
    await world.serve("cam-1", "1.0.0")
    await world.driver.evaluate()
    assert await world.alerts() == []
    assert await world.state("device:cam-1", "2.0.0") is None
    assert await world.state("fleet", "2.0.0") is None


async def test_a_resolved_alert_opens_anew_while_its_cause_goes_on(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    (alert,) = await world.alerts()
    async with world.database.write() as tx:
        await desk.resolve(tx, alert.id, by="ana", note=None, now=world.clock.at)
    await world.send("cam-1", 0.3)
    (again,) = await world.alerts()
    assert again.id != alert.id


async def test_without_news_nothing_is_written(world: World) -> None:
    await world.send("cam-1", 0.5)
    seen = world.hub.count
    await world.driver.evaluate()
    assert world.hub.count == seen


@pytest.mark.parametrize(("hours", "looked"), [(1e-5, True), (6, False)])
async def test_without_news_the_next_look_comes_after_the_monitoring_interval(
    world: World, hours: float, looked: bool
) -> None:
    """A window that nobody announced is found by a look that nothing but the interval caused."""
    drift = world.settings.drift_detection.model_copy(update={"monitoring_interval_hours": hours})
    world.settings = world.settings.model_copy(update={"drift_detection": drift})
    running = asyncio.create_task(DriftDriver(world).run())
    await asyncio.sleep(1.6)  # the first two looks are at the start
    await world.deliver("cam-1", 0.5, 200, world.clock.at)
    await asyncio.sleep(1.8)
    running.cancel()
    await asyncio.wait([running])
    assert (await world.state("device:cam-1") is not None) == looked
