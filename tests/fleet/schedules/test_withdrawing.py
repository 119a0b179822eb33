"""A release that was withdrawn: nothing brings it to a device any more, by whatever way."""

import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from fleet.api import withdrawing
from fleet.devices import assigning
from fleet.devices.announcer import Announcer
from fleet.rollouts.errors import WithdrawnError
from fleet.store import tables
from tests.fleet.rollouts.conftest import application
from tests.fleet.schedules.conftest import Later, committed

BASE = "/models/digits/versions/2.0.0"
WHY = {"reason": "sees sevens everywhere"}


@pytest.fixture
async def api(world: Later) -> Any:
    from fleet.api import aliases, schedules

    app = application(world)
    for module in (schedules, aliases, withdrawing):
        app.include_router(module.router)
    headers = {"Authorization": "Bearer admin"}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet/api/v1", headers=headers) as client:
        yield client


async def fleet(world: Later, *names: str) -> None:
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    for name in names or ("cam-1", "cam-2", "cam-3"):
        await world.device(name)


async def rolled_out(world: Later, api: httpx2.AsyncClient, **more: Any) -> str:
    body = {"model": "digits", "version": "2.0.0", "waves": ["100%"], "bake_seconds": 0, **more}
    answer = await api.post("/rollouts", json=body)
    assert answer.status_code == 201, answer.text
    await world.advance()
    return str(answer.json()["id"])


async def withdrawn(api: httpx2.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post(f"{BASE}/withdraw", json=WHY | more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def newest(world: Later, device: str) -> str:
    """The version that the device was last told."""
    async with world.database.read() as tx:
        found = assigning.assigned_release(await tx.get_one(tables.Device, device))
    return found[1] if found else ""


async def test_nothing_brings_a_withdrawn_release_to_a_device(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    waiting = await api.post(
        "/schedules", json={"model": "digits", "version": "2.0.0", "at": "2026-01-01T02:00:00Z", "window": None}
    )
    told = await withdrawn(api)
    assert told["schedules"] == [waiting.json()["id"]]
    plan = {"model": "digits", "version": "2.0.0"}
    for method, path, body in (
        ("POST", "/rollouts", plan),
        ("POST", "/rollouts?dry_run=true", plan),
        ("POST", "/rollouts", {**plan, "force": True}),
        ("POST", "/schedules", {**plan, "cron": "0 2 * * *"}),
        ("PUT", "/models/digits/aliases/stable", {"version": "2.0.0"}),
    ):
        answer = await api.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "E_WITHDRAWN"), (path, answer.text)
        assert answer.json()["detail"] == "digits@2.0.0 is withdrawn: sees sevens everywhere"
        assert answer.json()["hint"] == "choose another version: flotilla model show digits"
    await world.until(7200)
    later = (await api.get(f"/schedules/{waiting.json()['id']}")).json()
    assert (later["state"], later["reason"]) == ("failed", "digits@2.0.0 is withdrawn: sees sevens everywhere")
    assert world.announcer.devices == []
    async with world.database.write() as tx:  # whoever asks for an assignment, such as a roll back by hand
        device = await tx.get_one(tables.Device, "cam-1")
        release = await tx.get_one(tables.Release, ("digits", "2.0.0"))
        with pytest.raises(WithdrawnError):
            await assigning.assign(tx, world.director, device, release, now=world.clock.at)


async def test_a_rollout_under_way_stops_and_who_has_it_keeps_it(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world, "cam-1", "cam-2", "cam-3", "cam-4")
    rollout = await rolled_out(world, api, waves=["3", "100%"])
    told = [one.device for one in (await world.view(rollout)).deployments if one.touched]
    has, fetches, queued = told
    await world.report(has, rollout, "committed", version="2.0.0")
    await world.serve(has, "2.0.0")
    await world.report(fetches, rollout, "fetching", version="2.0.0")
    before = await world.assigned(has)
    found = await withdrawn(api)
    assert (found["stops"], found["reverses"]) == ([rollout], [])
    assert [(one["device"], one["by"]) for one in found["serving"]] == [(has, rollout)]
    await world.advance()
    assert [await newest(world, name) for name in (fetches, queued)] == ["1.0.0", "1.0.0"]
    assert await world.assigned(has) == before
    for name in (fetches, queued):
        await world.report(name, rollout, "committed", version="1.0.0")
    await world.advance()
    view = await world.view(rollout)
    assert view.state == "aborted"
    assert "2.0.0 was withdrawn by ana: sees sevens everywhere" in str(view.reason)


async def test_with_rollback_who_has_it_goes_back_also_from_rollouts_that_are_over(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    rollout = await rolled_out(world, api)
    await committed(world, rollout)
    assert (await world.view(rollout)).state == "completed"
    await world.release("3.0.0")
    await world.serve("cam-3", "3.0.0")  # it moved on since, and is left alone
    three = await world.assigned("cam-3")
    assert (await api.post(f"{BASE}/withdraw?dry_run=true", json=WHY | {"rollback": True})).json()["reverses"] == [
        rollout
    ]
    assert (await world.view(rollout)).state == "completed"
    found = await withdrawn(api, rollback=True)
    assert [one["device"] for one in found["serving"]] == ["cam-1", "cam-2"]
    await world.advance()
    assert [await newest(world, name) for name in ("cam-1", "cam-2")] == ["1.0.0", "1.0.0"]
    assert await world.assigned("cam-3") == three
    for name in ("cam-1", "cam-2"):
        await world.report(name, rollout, "committed", version="1.0.0")
        await world.serve(name, "1.0.0")
    await world.advance()
    assert (await world.view(rollout)).state == "rolled-back"


async def test_a_device_that_was_away_gets_another_order_and_never_the_release(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world, "cam-1", "cam-2")
    rollout = await rolled_out(world, api, timeout_seconds=60, auto_rollback=False)
    await world.until(120)
    assert (await world.view(rollout)).state not in ("running", "paused")
    assert await newest(world, "cam-1") == "2.0.0"
    async with world.database.write() as tx:  # one of them has lost everything
        (await tx.get_one(tables.Device, "cam-2")).serving = {}
    world.announcer.devices.clear()
    found = await withdrawn(api)
    assert found["told"] == ["cam-1", "cam-2"]
    assert await newest(world, "cam-1") == "1.0.0"
    assert await newest(world, "cam-2") == ""  # called off: there is nothing that it could stay with
    assert world.announcer.devices == ["cam-1", "cam-2"]
    told = Told()
    announcer = Announcer(world.database, world.director)
    announcer.attach(told)  # type: ignore[arg-type]
    async with world.database.write() as tx:
        tx.add(tables.Metadata(role="timestamp", version=1, data=b"{}"))
    await announcer.announce("cam-1")
    await announcer.announce("cam-2")
    assert [(topic.split("/")[2], b"never" in payload) for topic, payload in told.said] == [
        ("cam-1", False), ("cam-2", True)
    ]  # fmt: skip
    async with world.database.write() as tx:  # an order of before, if nothing else took its place
        device = await tx.get_one(tables.Device, "cam-2")
        device.assigned = str(device.assigned).replace('"never"', '"now"')
    told.said.clear()
    await announcer.announce("cam-2")
    assert [payload for _, payload in told.said] == [b""]


class Told:
    """A link that keeps what is published."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self.said.append((topic, payload))


async def test_a_version_to_go_back_to_that_was_withdrawn_is_not_given_either(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world, "cam-1")
    rollout = await rolled_out(world, api)
    await committed(world, rollout)
    assert (await api.post("/models/digits/versions/1.0.0/withdraw", json=WHY)).status_code == 200
    assert (await api.post(f"/rollouts/{rollout}/rollback", json={})).status_code == 200
    await world.advance()
    await world.advance()
    (one,) = (await world.view(rollout)).deployments
    assert (one.state, one.reason) == ("failed", "E_WITHDRAWN")
    assert await newest(world, "cam-1") == "2.0.0"


async def test_an_alias_that_stands_for_it_is_named_and_may_move_on(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    for version in ("1.0.0", "2.0.0"):
        assert (await api.put("/models/digits/aliases/stable", json={"version": version})).status_code == 200
    assert (await withdrawn(api))["aliases"] == ["stable"]
    assert (await api.post("/models/digits/aliases/stable/undo")).json()["version"] == "1.0.0"


async def test_it_may_be_given_out_again_and_what_was_stopped_stays_stopped(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await fleet(world)
    rollout = await rolled_out(world, api)
    await withdrawn(api)
    for _ in range(2):
        answer = await api.post(f"{BASE}/restore", json={"reason": "it was the lamp"})
        assert answer.json()["state"] == "released"
    assert (await world.view(rollout)).state in ("aborting", "aborted")
    again = await api.post("/rollouts?dry_run=true", json={"model": "digits", "version": "2.0.0"})
    assert again.status_code == 409  # the one that stops is still at work
    assert again.json()["code"] == "E_ROLLOUT_OVERLAP"
    async with world.database.write() as tx:
        release = await tx.get_one(tables.Release, ("digits", "2.0.0"))
        release.state, release.withdrawn_at = "retired", world.clock.at
    gone = await api.post(f"{BASE}/restore", json={"reason": "please"})
    assert (gone.status_code, gone.json()["code"]) == (409, "E_RESTORE")


async def test_withdrawing_twice_is_harmless_and_told_once(world: Later, api: httpx2.AsyncClient) -> None:
    await fleet(world)
    first = await withdrawn(api)
    assert await withdrawn(api) == first
    lines = [text for text in await world.texts() if "withdrawn" in text]
    assert lines == ["digits@2.0.0 withdrawn by ana: sees sevens everywhere"]
    async with world.database.read() as tx:
        rows = (await tx.scalars(select(tables.AuditRow).where(tables.AuditRow.action == "model.withdraw"))).all()
    assert [row.subject for row in rows] == ["digits@2.0.0"] * 2
    assert json.loads(json.dumps(rows[0].body))["reason"] == WHY["reason"]


@pytest.mark.parametrize(
    ("role", "rollback", "status"),
    [("viewer", False, 403), ("approver", False, 403), ("releaser", False, 200), ("releaser", True, 403),
     ("operator", True, 200)],
)  # fmt: skip
async def test_who_may_withdraw(world: Later, api: httpx2.AsyncClient, role: str, rollback: bool, status: int) -> None:
    await fleet(world)
    headers = {"Authorization": f"Bearer {role}"}
    answer = await api.post(f"{BASE}/withdraw", json=WHY | {"rollback": rollback}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "force": True}])
async def test_a_withdrawal_says_why(world: Later, api: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    await fleet(world)
    assert (await api.post(f"{BASE}/withdraw", json=body)).status_code == 422
    assert (await api.post("/models/digits/versions/9.9.9/withdraw", json=WHY)).json()["code"] == "E_RELEASE_UNKNOWN"
