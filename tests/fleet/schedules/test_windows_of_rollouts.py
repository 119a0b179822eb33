"""A rollout with a window: who is told when, what the assignment carries, what counts as waiting."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.schedules import timing
from fleet.schedules.precedence import PRIORITIES, Rival, held_by, rank
from fleet.schedules.timing import Timetable
from fleet.store import alerts, tables
from fleet.store import rollouts as rollout_store
from shared.windows import Hours, Window, is_open
from tests.fleet.schedules.conftest import WINDOWS, Later

NIGHT = Window(start="02:00", end="04:00", zone="UTC")


async def rollout(world: Later, api: httpx2.AsyncClient, **said: Any) -> str:
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    body = {"model": "digits", "version": "2.0.0", "waves": ["100%"], "window": "settings", **said}
    answer = await api.post("/rollouts", json=body)
    assert answer.status_code == 201, answer.text
    await world.driver.advance()
    return str(answer.json()["id"])


async def orders(world: Later, device: str) -> dict[str, Any]:
    (target,) = json.loads((await world.assigned(device))[1])["signed"]["targets"].values()
    return dict(target["custom"])


async def test_a_device_that_can_wait_is_told_at_once_with_its_window(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS, labels={"timezone": "Asia/Tokyo"})
    await world.device("cam-2", features=WINDOWS)
    made = await rollout(world, api)
    assert sorted(world.announcer.devices) == ["cam-1", "cam-2"]
    first, second = (await orders(world, "cam-1"))["window"], (await orders(world, "cam-2"))["window"]
    assert (first["start"], first["end"], first["zone"]) == ("02:00", "04:00", "Asia/Tokyo")
    assert second["zone"] == "UTC"
    assert 0 <= first.get("delay_seconds", 0) <= 600
    view = await world.view(made)
    assert view.window == "02:00 to 04:00, local time of each device (UTC without one)"


async def test_without_asking_for_a_window_devices_swap_at_once(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS)
    await rollout(world, api, window=None)
    assert "window" not in await orders(world, "cam-1")


async def test_an_agent_that_cannot_wait_is_told_inside_its_window_without_a_word_of_it(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await world.device("cam-1")
    made = await rollout(world, api)
    (shown,) = (await world.view(made)).deployments
    assert (shown.state, shown.touched) == ("queued", False)
    assert (shown.waits_for or "").startswith("its window opens at 2026-01-01T02:0")
    await world.until(3 * 3600)
    assert world.announcer.devices == ["cam-1"]
    assert {"window", "keep_versions"} & set(await orders(world, "cam-1")) == set()


async def test_an_agent_that_cannot_wait_and_is_away_is_not_told_before_it_is_there(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await world.device("cam-1", online=False)
    made = await rollout(world, api)
    await world.until(3 * 3600)
    assert world.announcer.devices == []
    assert "it is offline" in str((await world.view(made)).deployments[0].waits_for)


async def test_the_wait_for_the_window_is_no_silence_and_the_time_inside_is(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await world.device("cam-1", features=WINDOWS)
    made = await rollout(world, api, timeout_seconds=1800)
    await world.report("cam-1", made, "self-tested", reason="E_WINDOW", detail="next at two")
    await world.until(2 * 3600 + 1799)
    (shown,) = (await world.view(made)).deployments
    assert (shown.state, shown.reason) == ("self-tested", "E_WINDOW")
    await world.until(1)
    (shown,) = (await world.view(made)).deployments
    assert (shown.state, shown.reason) == ("rolling-back", "E_TIMEOUT")


async def test_the_way_back_does_not_wait(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS)
    made = await rollout(world, api)
    await world.report("cam-1", made, "committed", version="2.0.0")
    await world.serve("cam-1", "2.0.0")
    await api.post(f"/rollouts/{made}/rollback", json={})
    await world.driver.advance()
    found = await orders(world, "cam-1")
    assert (found["version"], found.get("window")) == ("1.0.0", None)


async def test_a_device_that_lets_windows_pass_is_told_of_until_it_comes_through(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await world.device("cam-1", features=WINDOWS)
    made = await rollout(world, api, timeout_seconds=86400)

    async def live() -> list[str]:
        async with world.database.read() as tx:
            return [alert.text for alert in await alerts.live(tx, kind="rollout")]

    await world.report("cam-1", made, "self-tested", reason="E_CONDITIONS", detail="hot")
    await world.until(86400)
    assert await live() == []  # one window passed
    await world.until(86400)
    assert await live() == [f"{made}: 1 devices let 2 or more of their windows pass: cam-1 (E_CONDITIONS)"]
    await world.report("cam-1", made, "committed", version="2.0.0")
    await world.until(61)
    assert await live() == []


OTHER_HOURS = {
    "update_window_start": "22:00",
    "update_window_end": "23:00",
    "timezone": "Europe/Berlin",
    "weekdays": ["sat"],
    "blackout_dates": ["2026-12-26"],
    "jitter_minutes": 0,
}


@pytest.mark.parametrize("sections", [{"scheduling": OTHER_HOURS}])
async def test_every_part_of_the_window_comes_from_the_settings(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS)
    await rollout(world, api)
    assert (await orders(world, "cam-1"))["window"] == {
        "start": "22:00", "end": "23:00", "zone": "Europe/Berlin", "weekdays": ["sat"], "blackouts": ["2026-12-26"],
    }  # fmt: skip


async def test_a_window_of_its_own_and_an_impossible_one(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS)
    await rollout(world, api, window={"start": "12:00", "end": "13:00"})
    assert (await orders(world, "cam-1"))["window"]["start"] == "12:00"
    body = {"model": "digits", "version": "1.0.0", "window": {"start": "12:00", "end": "12:00"}}
    assert (await api.post("/rollouts", json=body)).status_code == 422


def test_delays_are_stable_and_spread() -> None:
    table = Timetable(Hours(start="02:00", end="04:00"), "UTC", jitter_seconds=600)
    delays = [timing.window_of(table, "ro-a", f"cam-{number}", {}).delay_seconds for number in range(200)]
    again = [timing.window_of(table, "ro-a", f"cam-{number}", {}).delay_seconds for number in range(200)]
    assert delays == again
    assert len(set(delays)) > 100
    assert 0 <= min(delays) < 60 < 540 < max(delays) <= 600
    assert timing.zone_of({"timezone": "Mars/Base"}, "Europe/Berlin") == "Europe/Berlin"


@given(told=st.integers(0, 3000), later=st.integers(0, 6000), online=st.booleans(), waits=st.booleans())
def test_nobody_is_told_outside_of_a_window_that_it_cannot_wait_for(
    told: int, later: int, online: bool, waits: bool
) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(minutes=told)
    before = timing.turn(NIGHT, waits_itself=waits, online=online, told_at=None, now=now)
    if before.held is None and not waits:
        assert online
        assert is_open(NIGHT, now)
        assert is_open(NIGHT, now + timing.NEEDED)
    after = timing.turn(NIGHT, waits_itself=waits, online=online, told_at=now, now=now + timedelta(minutes=later))
    truth = sum(not is_open(NIGHT, now + timedelta(minutes=minute)) for minute in range(later)) if waits else 0
    assert after == timing.Turn(None, timedelta(minutes=truth))


@given(
    st.sampled_from(PRIORITIES),
    st.lists(st.builds(Rival, st.sampled_from(["ro-a", "ro-b"]), st.sampled_from(["digits", "faces"]),
                       st.sampled_from(PRIORITIES), st.booleans(), st.booleans()), max_size=4),
)  # fmt: skip
def test_nothing_that_waits_waits_for_something_lower(priority: str, rivals: list[Rival]) -> None:
    why = held_by("digits", priority, rivals)
    blocking = [
        one for one in rivals
        if (one.told and (one.model == "digits" or not one.ended))
        or (not one.told and not one.ended and rank(one.priority) > rank(priority))
    ]  # fmt: skip
    assert (why is None) == (blocking == [])


async def test_another_model_is_delayed_and_not_taken(world: Later, api: httpx2.AsyncClient) -> None:
    for name in ("cam-1", "cam-2"):
        await world.device(name)
    first = await rollout(world, api, window=None, waves=["1", "100%"], priority="low")
    async with world.database.write() as tx:
        release = await tx.get_one(tables.Release, ("digits", "2.0.0"))
        columns = {column.key: getattr(release, column.key) for column in tables.Release.__table__.columns}
        tx.add(tables.Release(**{**columns, "model": "faces", "manifest_digest": "f" * 64}))
    body = {"model": "faces", "version": "2.0.0", "waves": ["100%"], "priority": "high"}
    second = (await api.post("/rollouts", json=body)).json()["id"]
    (told,) = world.announcer.devices
    other = "cam-2" if told == "cam-1" else "cam-1"
    await world.driver.advance()
    assert world.announcer.devices == [told, other]
    details = {one.device: one.waits_for for one in (await world.view(second)).deployments}
    assert details[told] == f"it is under way with {first}"
    await world.report(told, first, "committed", version="2.0.0")
    await world.driver.advance()
    assert world.announcer.devices[2:] == [told]
    waiting = next(one for one in (await world.view(first)).deployments if one.device == other)
    assert (waiting.state, waiting.waits_for) == ("queued", f"it is under way with {second}")
    async with world.database.read() as tx:
        assert len(await rollout_store.active(tx)) == 2
