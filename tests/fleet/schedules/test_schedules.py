"""Schedules become rollouts: once, in order of priority, also after the manager was away."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from fleet.schedules import calendar, engine
from fleet.schedules.driver import ScheduleDriver
from fleet.schedules.errors import ScheduleStateError, ScheduleTimeError
from fleet.schedules.states import MOVES, Event, Schedule, State, advance, from_json, to_json
from fleet.store import alerts, tables
from shared.windows import ZoneError
from tests.fleet.rollouts.conftest import T0
from tests.fleet.schedules.conftest import Later, committed

NIGHT = "2026-01-01T02:00"


async def fleet(world: Later, devices: int = 3, versions: tuple[str, ...] = ("1.0.0", "2.0.0")) -> None:
    for number in range(devices):
        await world.device(f"cam-{number + 1}", features=["windows"])
    for version in versions:
        await world.release(version)


async def scheduled(api: httpx2.AsyncClient, **said: Any) -> dict[str, Any]:
    body = {"model": "digits", "version": "2.0.0", "at": NIGHT, "window": None, "waves": ["100%"], **said}
    answer = await api.post("/schedules", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def shown(api: httpx2.AsyncClient, schedule: str) -> dict[str, Any]:
    return dict((await api.get(f"/schedules/{schedule}")).json())


async def rollouts(world: Later) -> int:
    async with world.database.read() as tx:
        return await tx.scalar(select(func.count()).select_from(tables.Rollout)) or 0


async def test_a_schedule_becomes_a_rollout_at_its_time_and_ends_with_it(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = await scheduled(api)
    assert (made["state"], made["due"], made["actions"]) == ("waiting", "2026-01-01T02:00:00.000Z", ["pause", "cancel"])
    await world.until(7199)
    assert await rollouts(world) == 0
    await world.until(1)
    found = await shown(api, made["id"])
    assert found["state"] == "running"
    assert world.announcer.devices == ["cam-1", "cam-2", "cam-3"]
    await committed(world, found["rollout"])
    await world.schedules.advance()
    assert (await shown(api, made["id"]))["state"] == "completed"
    assert any(f"started {found['rollout']}" in text for text in await world.texts())


async def test_whose_schedule_it_was_does_not_approve_what_came_of_it(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = await scheduled(api, require_approval=True)
    await world.until(7200)
    path = f"/rollouts/{(await shown(api, made['id']))['rollout']}/approve"
    own = await api.post(path)
    assert (own.status_code, own.json()["code"]) == (403, "E_OWN_APPROVAL")
    other = await api.post(path, headers={"Authorization": "Bearer approver bo bo"})
    assert other.json()["state"] == "running"


async def test_two_managers_make_one_rollout_of_it(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    await scheduled(api)
    world.after(7200)
    await asyncio.gather(*(ScheduleDriver(world).advance() for _ in range(5)))
    assert await rollouts(world) == 1


async def test_a_manager_that_dies_while_it_makes_the_rollout_makes_it_later_and_once(
    world: Later, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet(world)
    made = await scheduled(api)
    world.after(7200)

    class Killed(BaseException):
        pass

    from fleet.schedules import making

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(making, "save", killed)  # the last thing in the transaction
        with pytest.raises(Killed):
            await world.schedules.advance()
    assert await rollouts(world) == 0
    await ScheduleDriver(world).advance()
    assert await rollouts(world) == 1
    assert (await shown(api, made["id"]))["runs"] == 1


async def test_a_manager_that_was_away_runs_what_is_late_and_skips_what_is_too_late(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    late = await scheduled(api, target={"ids": ["cam-1"]})
    await world.until(2 * 3600 + 59 * 60)
    assert (await shown(api, late["id"]))["state"] == "running"
    too_late = await scheduled(api, at="2026-01-01T04:00", target={"ids": ["cam-2"]})
    await world.until(3 * 3600)
    found = await shown(api, too_late["id"])
    assert (found["state"], found["rollout"]) == ("missed", None)
    assert "the manager was away" in found["reason"]
    async with world.database.read() as tx:
        told = [alert.subject for alert in await alerts.live(tx, kind="rollout") if "schedule" in alert.body]
    assert told == [f"{too_late['id']} digits@2.0.0"]


async def test_late_is_not_too_late_while_the_window_is_open(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = await scheduled(api, window="settings")
    await world.until(2 * 3600 + 119 * 60)
    assert (await shown(api, made["id"]))["state"] == "running"


async def test_cron_runs_again_and_again(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = await scheduled(api, at=None, cron="0 22 * * *", zone="Europe/Berlin")
    assert made["due"] == "2026-01-01T21:00:00.000Z"
    await world.until(21 * 3600)
    first = await shown(api, made["id"])
    assert first["state"] == "running"
    await committed(world, first["rollout"])
    await world.schedules.advance()
    found = await shown(api, made["id"])
    assert (found["state"], found["due"], found["runs"]) == ("waiting", "2026-01-02T21:00:00.000Z", 1)
    await world.device("cam-9", features=["windows"])
    world.clock.at = T0 + timedelta(days=1, hours=21)
    await world.advance()
    second = await shown(api, made["id"])
    assert second["runs"] == 2
    assert [one.device for one in (await world.view(second["rollout"])).deployments] == ["cam-9"]
    await committed(world, second["rollout"])
    await world.schedules.advance()
    world.clock.at = T0 + timedelta(days=4)
    await world.advance()
    skipped = await shown(api, made["id"])
    assert (skipped["state"], skipped["due"]) == ("waiting", "2026-01-05T21:00:00.000Z")
    assert "missed its time" in skipped["reason"]


async def test_a_schedule_waits_with_a_reason_for_devices_that_are_taken(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world, versions=("1.0.0", "2.0.0", "3.0.0"))
    first = await scheduled(api)
    second = await scheduled(api, version="3.0.0")
    await world.until(7200)
    await world.schedules.advance()
    rollout = (await shown(api, first["id"]))["rollout"]
    found = await shown(api, second["id"])
    assert found["state"] == "queued"
    assert f"{rollout} is still at work on 3 of these devices" in found["reason"]
    assert sum("waits:" in text for text in await world.texts()) == 1
    await committed(world, rollout)
    await world.advance()
    assert (await shown(api, second["id"]))["state"] == "running"


async def test_a_higher_priority_takes_devices_that_were_not_told_and_no_other(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world, devices=4, versions=("1.0.0", "2.0.0", "3.0.0"))
    low = (await scheduled(api, priority="low", waves=["1", "100%"]))["id"]
    await world.until(7200)
    first = (await shown(api, low))["rollout"]
    (told,) = world.announcer.devices
    urgent = (await scheduled(api, version="3.0.0", at="2026-01-01T02:01", priority="critical"))["id"]
    await world.until(60)
    second = (await shown(api, urgent))["rollout"]
    states = {one.device: (one.state, one.reason) for one in (await world.view(first)).deployments}
    assert {name for name, said in states.items() if said == ("cancelled", "E_PREEMPTED")} == set(states) - {told}
    assert set(world.announcer.devices[1:]) == set(states) - {told}
    held = next(one for one in (await world.view(second)).deployments if one.device == told)
    assert (held.touched, held.waits_for) == (False, f"{first} is not over yet")
    assert (await world.view(second)).priority == "critical"
    texts = await world.texts()
    assert any(text.startswith(f"{second} (critical) took cam-") for text in texts)
    assert any(f"goes before {first}" in text for text in texts)
    await world.report(told, first, "committed", version="2.0.0")
    await world.serve(told, "2.0.0")
    for _ in range(5):
        await world.until(301)
    assert (await world.view(first)).state == "completed"
    assert world.announcer.devices[-1] == told
    await committed(world, second, "3.0.0")
    assert (await world.view(second)).counts.committed == 4


async def test_the_same_priority_waits_and_a_lower_one_as_well(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world, versions=("1.0.0", "2.0.0", "3.0.0"))
    await scheduled(api, priority="high")
    await world.until(7200)
    answer = await api.post("/rollouts", json={"model": "digits", "version": "3.0.0", "priority": "high"})
    assert answer.json()["code"] == "E_ROLLOUT_OVERLAP"
    assert "priority above high" in answer.json()["hint"]


async def test_pause_resume_and_cancel(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = (await scheduled(api))["id"]
    assert (await api.post(f"/schedules/{made}/pause")).json()["reason"] == "paused by ana"
    await world.until(7200)
    assert await rollouts(world) == 0
    assert (await api.post(f"/schedules/{made}/resume")).json()["state"] == "waiting"
    await world.advance()
    assert await rollouts(world) == 1
    answer = await api.post(f"/schedules/{made}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "E_SCHEDULE_STATE")
    assert "flotilla rollout abort ro-" in answer.json()["hint"]
    other = (await scheduled(api, at="2026-01-03T02:00"))["id"]
    assert (await api.post(f"/schedules/{other}/cancel")).json()["state"] == "cancelled"
    assert [row["id"] for row in (await api.get("/schedules")).json()["items"]] == [made]
    assert len((await api.get("/schedules", params={"state": "all"})).json()["items"]) == 2
    async with world.database.read() as tx:
        actions = list(await tx.scalars(select(tables.AuditRow.action)))
    assert actions == [
        "schedule.create", "schedule.pause", "schedule.resume", "rollout.start", "schedule.create", "schedule.cancel",
    ]  # fmt: skip


async def test_what_cannot_start_fails_with_its_reason_and_nothing_to_do_is_done(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    gone = (await scheduled(api))["id"]
    done = (await scheduled(api, version="1.0.0"))["id"]
    async with world.database.write() as tx:
        (await tx.get_one(tables.Release, ("digits", "2.0.0"))).state = "withdrawn"
    await world.until(7200)
    assert (await shown(api, gone))["reason"] == "digits@2.0.0 is withdrawn"
    assert (await shown(api, gone))["state"] == "failed"
    assert (await shown(api, done))["state"] == "completed"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"at": "2025-12-31T23:59"}, "E_SCHEDULE_TIME"),
        ({"at": None, "cron": "61 * * * *"}, "E_SCHEDULE_TIME"),
        ({"at": None, "cron": "* * * *"}, "E_SCHEDULE_TIME"),
        ({"at": None, "cron": "0 0 30 2 *"}, "E_SCHEDULE_TIME"),
        ({"zone": "Mars/Base"}, "E_ZONE"),
        ({"version": "9.9.9"}, "E_RELEASE_UNKNOWN"),
        ({"version": "beta"}, "E_RELEASE_UNKNOWN"),
    ],
)
async def test_what_can_never_run_is_refused_at_once(
    world: Later, api: httpx2.AsyncClient, said: dict[str, Any], code: str
) -> None:
    await fleet(world)
    body = {"model": "digits", "version": "2.0.0", "at": NIGHT, **said}
    answer = await api.post("/schedules", json=body)
    assert answer.json()["code"] == code


async def test_who_may_only_look_cannot_schedule(world: Later, api: httpx2.AsyncClient) -> None:
    answer = await api.post(
        "/schedules",
        json={"model": "digits", "version": "2.0.0", "at": NIGHT},
        headers={"Authorization": "Bearer viewer"},
    )
    assert answer.status_code == 403
    assert (await api.get("/schedules/sc-none")).json()["code"] == "E_SCHEDULE_UNKNOWN"


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_move_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if event in MOVES[state]:
        assert advance(state, event) is MOVES[state][event]
    else:
        with pytest.raises(ScheduleStateError):
            advance(state, event)


SCHEDULE = Schedule("sc-a", "once", "digits", "2.0.0", T0, T0, "UTC")


def test_a_schedule_survives_the_database() -> None:
    assert from_json(to_json(SCHEDULE)) == SCHEDULE


@given(late=st.integers(0, 10_000), grace=st.integers(0, 5000), window_open=st.booleans())
def test_it_runs_within_the_grace_or_the_window_and_is_told_as_missed_otherwise(
    late: int, grace: int, window_open: bool
) -> None:
    asked = Schedule("sc-a", "once", "digits", "2.0.0", T0, T0, "UTC", grace_seconds=grace)
    step = engine.due(asked, T0 + timedelta(seconds=late), window_open=window_open)
    runs = late <= grace or window_open
    assert step.schedule.state is (State.QUEUED if runs else State.MISSED)
    assert [note.alarm for note in step.notes] == ([] if runs else [True])
    assert engine.due(step.schedule, T0 + timedelta(seconds=late), window_open=window_open).schedule == step.schedule


@pytest.mark.parametrize(
    ("said", "zone", "found"),
    [
        ("2026-12-01T02:00", "UTC", "2026-12-01T02:00"),
        ("2026-12-01T02:00", "Europe/Berlin", "2026-12-01T01:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:30"),  # skipped: 03:30 on the wall
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30"),  # twice: the first
        ("2026-12-01T02:00+05:00", "Europe/Berlin", "2026-11-30T21:00"),
    ],
)
def test_a_wall_time_is_an_instant(said: str, zone: str, found: str) -> None:
    assert calendar.instant(datetime.fromisoformat(said), zone) == datetime.fromisoformat(found).replace(tzinfo=UTC)


def test_cron_keeps_to_the_wall_across_daylight_saving() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert calendar.following("0 2 * * *", "Europe/Berlin", before) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    twice = calendar.following("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC))
    again = calendar.following("30 2 * * *", "Europe/Berlin", twice)
    assert again - twice > timedelta(hours=23)  # once, not twice
    with pytest.raises(ZoneError):
        calendar.following("0 2 * * *", "Mars/Base", before)
    with pytest.raises(ScheduleTimeError):
        calendar.following("0 2 * * * *", "UTC", before)
