"""Windows in a real database to the gate's comparisons, against the same sums made by hand."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from fleet.releases.director import Director
from fleet.releases.online_keys import OnlineKeys
from fleet.rollouts import gathering, verdicts
from fleet.rollouts.gate_driver import GateDriver
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from tests.fleet.rollouts.conftest import T0, World
from tests.fleet.rollouts.telling import Teller
from tests.fleet.telemetry.conftest import either, postgres

__all__ = ["either", "postgres"]  # fixtures

CANARY, OTHERS = "cam-0", ("cam-1", "cam-2", "cam-3")


@pytest.fixture
async def world(either: str, tmp_path: Path) -> AsyncIterator[World]:  # the fixture above
    """On SQLite and on PostgreSQL: sums are made by the database."""
    database = Database(either)
    await database.open()
    keys = OnlineKeys.open(tmp_path / "keys")
    yield World(FleetSettings(data_dir=tmp_path), database, Director(keys), keys)
    await database.close()


@pytest.fixture
async def started(world: Any, api: httpx2.AsyncClient) -> tuple[str, Teller]:
    """A rollout whose canary has the release, after a week in which each device told of every hour."""
    teller = Teller(world)
    for name in (CANARY, *OTHERS):
        await world.device(name, hardware="orin" if name in (CANARY, "cam-1") else "pi")
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    async with world.database.write() as tx:
        for hour in range(48):
            at = T0 - timedelta(hours=48 - hour)
            for place, name in enumerate((CANARY, *OTHERS)):
                more = {"failed": place, "fast": 91 - place, "slow": 9, "length": timedelta(hours=1)}
                tx.add(teller.window(name, "1.0.0", at=at, labelled=10, correct=9, **more))
        for restart in range(7):
            tx.add(teller.window("cam-3", "1.0.0", at=T0 - timedelta(hours=restart + 1), restarts=1))
    wanted = {"model": "digits", "version": "2.0.0", "waves": ["100%"], "target": {"ids": [CANARY]}}
    made = (await api.post("/rollouts", json=wanted)).json()["id"]
    await world.driver.advance()
    await world.report(CANARY, made, "committed", version="2.0.0")
    await world.serve(CANARY, "2.0.0")
    return made, teller


async def trials(world: Any, rollout: str) -> Any:
    async with world.database.read() as tx:
        return gathering.trials_of(await tx.get(tables.TrialState, rollout)).tests


async def habits(world: Any) -> dict[str, tables.Habit]:
    async with world.database.read() as tx:
        return {row.device_id: row for row in await tx.scalars(select(tables.Habit))}


async def test_habits_are_what_each_device_did_before(world: Any, started: Any) -> None:
    await GateDriver(world).advance()
    found = await habits(world)
    assert set(found) == {CANARY, *OTHERS}
    usual = (6 * 48 + 1) / (400 * 48 + 1)
    assert found["cam-2"].error_rate == pytest.approx((1 + 2 * 48) / (1 / usual + 100 * 48))
    assert found[CANARY].error_rate == pytest.approx(1 / (1 / usual + 100 * 48))
    assert [found[name].slow_above for name in (CANARY, *OTHERS)] == [100] * 4
    assert found["cam-1"].slow_rate == pytest.approx(9 / 99, rel=0.02)
    assert [found[name].excluded for name in (CANARY, *OTHERS)] == [False, False, False, True]
    assert all(row.ready for row in found.values())
    assert found["cam-1"].error_expected == pytest.approx(48, rel=1e-6)
    assert found["cam-1"].error_squares == pytest.approx(0, abs=1e-6)


async def test_an_interval_is_counted_once_on_both_sides(world: Any, started: Any) -> None:
    rollout, teller = started
    driver = GateDriver(world)
    await driver.advance()
    world.after(60)
    await teller.tell(CANARY, "2.0.0", failed=5, fast=80, slow=15, labelled=4, correct=3)
    await teller.tell("cam-1", "1.0.0", failed=1, fast=90, slow=9)
    await teller.tell("cam-2", "1.0.0", failed=2, fast=88, slow=10)
    world.after(6)
    for _ in range(3):  # the second and third find nothing new
        await driver.advance()
    found, before = await trials(world, rollout), await habits(world)
    errors, seen = found["errors"]["all"], found["errors"]["all"].seen
    assert (seen.candidate, seen.control) == (5, 3)
    assert (seen.candidate_exposure, seen.control_exposure) == (100, 200)
    assert seen.candidate_due == pytest.approx(100 * before[CANARY].error_rate)
    assert seen.control_due == pytest.approx(100 * (before["cam-1"].error_rate + before["cam-2"].error_rate))
    assert errors.log_e > 0
    assert set(found["errors"]) == {"all", "orin", "pi"}
    assert found["errors"]["pi"].seen.candidate == 0
    assert (found["slow"]["all"].seen.candidate, found["slow"]["all"].seen.control) == (15, 19)
    assert (found["wrong"]["orin"].seen.candidate, found["wrong"]["orin"].seen.candidate_exposure) == (1, 4)


async def test_what_a_device_told_before_it_settled_is_not_called_slow(world: Any, started: Any) -> None:
    rollout, teller = started
    driver = GateDriver(world)
    await driver.advance()
    world.after(60)
    await teller.tell(CANARY, "2.0.0", failed=1, slow=50, phase="probation")
    await teller.tell("cam-1", "1.0.0", fast=90, slow=10)
    world.after(6)
    await driver.advance()
    found = await trials(world, rollout)
    assert (found["errors"]["all"].seen.candidate, found["slow"]["all"].seen.candidate) == (1, 0)


async def test_two_crashes_of_a_device_count_and_silence_is_one(world: Any, started: Any) -> None:
    rollout, teller = started
    driver = GateDriver(world)
    await driver.advance()
    world.after(60)
    await teller.tell(CANARY, "2.0.0", fast=1, restarts=9)
    await teller.tell("cam-3", "1.0.0", fast=1, restarts=9)  # it looped before: excluded
    await teller.tell("cam-1", "1.0.0", fast=1)
    world.after(6)
    await driver.advance()
    seen = (await trials(world, rollout))["crashes"]["all"].seen
    assert (seen.candidate, seen.control, seen.candidate_exposure) == (2, 0, 60)
    world.after(400)  # nothing was heard of anybody for longer than silence_seconds
    await driver.advance()
    world.after(60)
    await driver.advance()
    seen = (await trials(world, rollout))["crashes"]["all"].seen
    assert (seen.candidate, seen.control) == (2, 2)  # cam-1 and cam-2; the canary's two were counted already
    assert (await habits(world))["cam-1"].silent


async def test_one_side_waits_for_the_other(world: Any, started: Any) -> None:
    rollout, teller = started
    driver = GateDriver(world)
    await driver.advance()
    for _ in range(3):
        world.after(60)
        await teller.tell(CANARY, "2.0.0", failed=10, fast=90)
        world.after(6)
        await driver.advance()
    waiting = (await trials(world, rollout))["errors"]["all"]
    assert (waiting.log_e, waiting.waiting.candidate) == (0.0, 30)
    await teller.tell("cam-1", "1.0.0", failed=1, fast=299, length=timedelta(hours=1))
    world.after(20)
    await driver.advance()
    found = (await trials(world, rollout))["errors"]["all"]
    assert found.log_e > 5
    assert found.waiting.candidate == 0


async def test_a_rollout_that_does_harm_stops_and_the_verdict_can_be_decided_again(world: Any, started: Any) -> None:
    rollout, teller = started
    driver = GateDriver(world)
    await driver.advance()
    for _ in range(4):
        world.after(60)
        await teller.tell(CANARY, "2.0.0", failed=4, fast=96)  # 4 %: below the fixed limit of 5 %
        for name in OTHERS:
            await teller.tell(name, "1.0.0", failed=2, fast=98)
        world.after(6)
        await driver.advance()
        await world.driver.advance()
    view = await world.view(rollout)
    assert view.state == "rolling-back"
    assert "failed requests" in view.reason
    assert "E " in view.reason
    async with world.database.read() as tx:
        rows = (await tx.scalars(select(tables.Verdict).order_by(tables.Verdict.id))).all()
    assert rows[-1].result == "fail"
    for row in rows:
        again = verdicts.replayed(row.body)
        assert verdicts.to_json(again) == row.body
        assert again.result == row.result
