"""Aliases: moved, followed inside the window, undone."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from fleet.schedules import strategy
from fleet.schedules.channels import follows
from fleet.settings import SchedulingSettings
from fleet.store import tables
from tests.fleet.schedules.conftest import WINDOWS, Later, committed

VERSIONS = ("1.0.0", "2.0.0", "3.0.0")


async def fleet(world: Later) -> None:
    for number in range(4):
        await world.device(f"cam-{number}", features=WINDOWS)
    await world.device("cam-new", features=WINDOWS, labels={"channel": "candidate"})
    await world.device("cam-empty", serving=None)
    for version in VERSIONS:
        await world.release(version)


async def put(api: httpx2.AsyncClient, version: str, alias: str = "stable") -> dict[str, Any]:
    answer = await api.put(f"/models/digits/aliases/{alias}", json={"version": version})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def shown(api: httpx2.AsyncClient, schedule: str) -> dict[str, Any]:
    return dict((await api.get(f"/schedules/{schedule}")).json())


async def test_moving_an_alias_updates_the_devices_that_follow_it_inside_their_window(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    made = await put(api, "2.0.0")
    await world.advance()
    found = await shown(api, made["schedule"])
    assert (found["kind"], found["state"], found["window"]) == ("auto", "running", "settings")
    view = await world.view(found["rollout"])
    assert sorted(one.device for one in view.deployments) == ["cam-0", "cam-1", "cam-2", "cam-3"]
    assert view.window is not None
    assert view.strategy == "canary"
    assert [wave.total for wave in view.waves] == [3, 1]  # scheduling.batch_size, then all
    await committed(world, found["rollout"])
    await world.schedules.advance()
    assert (await shown(api, made["schedule"]))["state"] == "completed"
    candidate = await put(api, "3.0.0", "candidate")
    await world.advance()
    view = await world.view((await shown(api, candidate["schedule"]))["rollout"])
    assert [one.device for one in view.deployments] == ["cam-new"]


async def test_the_same_version_again_changes_nothing(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    await put(api, "2.0.0")
    assert (await put(api, "2.0.0"))["schedule"] is None
    async with world.database.read() as tx:
        assert len((await tx.scalars(select(tables.AliasMove))).all()) == 1


async def test_an_update_that_has_not_begun_is_superseded_by_the_next_move(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    first, second = await put(api, "2.0.0"), await put(api, "3.0.0")
    found = await shown(api, first["schedule"])
    assert (found["state"], found["reason"]) == ("cancelled", "stable moved on to 3.0.0")
    await world.advance()
    assert (await shown(api, second["schedule"]))["state"] == "running"


async def test_a_move_is_undone_and_the_one_before_as_well(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    for version in VERSIONS:
        await put(api, version)
    undo = "/models/digits/aliases/stable/undo"
    assert [(await api.post(undo)).json()["version"] for _ in range(2)] == ["2.0.0", "1.0.0"]
    refused = await api.post(undo)
    assert (refused.status_code, refused.json()["code"]) == (409, "E_ALIAS_UNDO")
    (row,) = (await api.get("/models/digits/aliases")).json()["items"]
    assert (row["version"], len(row["moves"])) == ("1.0.0", 5)
    assert [move["undone"] for move in row["moves"]] == [False, False, True, True, False]
    await put(api, "3.0.0")
    assert (await api.post(undo)).json()["version"] == "1.0.0"


async def test_an_undo_brings_the_version_before_to_those_that_follow(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    await put(api, "1.0.0")
    made = await put(api, "2.0.0")
    await world.advance()
    await committed(world, (await shown(api, made["schedule"]))["rollout"])
    back = (await api.post("/models/digits/aliases/stable/undo")).json()
    await world.advance()
    found = await shown(api, back["schedule"])
    assert (await world.view(found["rollout"])).version == "1.0.0"


@pytest.mark.parametrize("sections", [{"scheduling": {"enable_auto_updates": False}}])
async def test_without_auto_updates_an_alias_is_a_name(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    assert (await put(api, "2.0.0"))["schedule"] is None
    await world.advance()
    assert world.announcer.devices == []


@pytest.mark.parametrize("sections", [{"scheduling": {"rollout_strategy": "rolling", "batch_size": 2}}])
async def test_an_automatic_update_goes_as_the_settings_say(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    made = await put(api, "2.0.0")
    await world.advance()
    view = await world.view((await shown(api, made["schedule"]))["rollout"])
    assert (view.strategy, [wave.total for wave in view.waves]) == ("rolling", [2, 2])


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7, 12, 13, 100])
def test_waves_of_a_canary_grow_whatever_the_fleet(devices: int) -> None:
    from fleet.rollouts import waves

    asked = strategy.fields(SchedulingSettings(), devices)
    assert sum(wave.size for wave in waves.canary(asked["waves"], devices)) == devices
    assert waves.canary(asked["waves"], devices)[0].size == min(3, devices)
    assert strategy.fields(SchedulingSettings(rollout_strategy="blue_green"), devices) == {"strategy": "blue-green"}


@pytest.mark.parametrize(
    ("labels", "serving", "channel", "found"),
    [
        ({}, {"digits": "1.0.0"}, "stable", True),
        ({}, {"digits": "1.0.0"}, "candidate", False),
        ({"channel": "candidate"}, {"digits": "1.0.0"}, "candidate", True),
        ({"channel": "candidate"}, {"digits": "1.0.0"}, "stable", False),
        ({}, {}, "stable", False),
    ],
)
def test_who_follows(labels: dict[str, str], serving: dict[str, str], channel: str, found: bool) -> None:
    assert follows(labels, serving, "digits", channel) is found


async def test_a_schedule_looks_its_alias_up_when_it_is_due(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    await put(api, "2.0.0", "nightly")
    body = {"model": "digits", "version": "nightly", "at": "2026-01-01T02:00", "window": None}
    made = (await api.post("/schedules", json=body)).json()
    await put(api, "3.0.0", "nightly")
    await world.until(7200)
    rollout = (await shown(api, made["id"]))["rollout"]
    assert (await world.view(rollout)).version == "3.0.0"


async def test_aliases_are_names_of_published_versions(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    assert (await api.put("/models/digits/aliases/stable", json={"version": "9.0.0"})).json()["code"] == (
        "E_RELEASE_UNKNOWN"
    )
    assert (await api.put("/models/digits/aliases/1.0", json={"version": "1.0.0"})).status_code == 422
    assert (await api.delete("/models/digits/aliases/stable")).json()["code"] == "E_ALIAS_UNKNOWN"
    await put(api, "2.0.0")
    assert (await api.delete("/models/digits/aliases/stable")).json()["removed"] is True
    assert (await api.get("/models/digits/aliases")).json() == {"items": []}
