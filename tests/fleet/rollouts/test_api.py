from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from fleet.store import tables

GOOD = {"model": "digits", "version": "2.0.0", "waves": ["1", "100%"]}


@pytest.fixture
async def fleet(world: Any) -> None:
    await world.device("cam-1", labels={"lens": "wide"}, site="gate")
    await world.device("cam-2", labels={"lens": "wide"}, online=False)
    await world.device("cam-3", serving="2.0.0")
    await world.device("cam-4", lifecycle="pending")
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)


@pytest.mark.usefixtures("fleet")
async def test_a_dry_run_tells_what_would_happen_and_does_nothing(world: Any, api: httpx2.AsyncClient) -> None:
    plan = (await api.post("/rollouts?dry_run=true", json=GOOD)).json()
    assert (plan["devices"], plan["reachable"], plan["offline"], plan["already"]) == (2, 1, ["cam-2"], ["cam-3"])
    assert [(wave["name"], wave["total"]) for wave in plan["waves"]] == [("Canary", 1), ("Fleet", 1)]
    assert plan["previous"] == ["1.0.0"]
    assert (await api.get("/rollouts")).json() == {"items": [], "next_cursor": None}


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("target", "devices"),
    [
        ("all", ["cam-1", "cam-2"]),
        ({"ids": ["cam-2"]}, ["cam-2"]),
        ({"labels": {"lens": "wide"}}, ["cam-1", "cam-2"]),
        ({"site": "gate"}, ["cam-1"]),
    ],
)
async def test_targets(api: httpx2.AsyncClient, target: Any, devices: list[str]) -> None:
    made = (await api.post("/rollouts", json={**GOOD, "target": target, "waves": ["100%"]})).json()
    assert sorted(it["device"] for it in made["deployments"]) == devices


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"version": "3.0.0"}, 404, "E_RELEASE_UNKNOWN"),
        ({"waves": ["50%"]}, 422, "E_WAVES"),
        ({"target": {"ids": ["cam-9"]}}, 422, "E_NO_DEVICES"),
        ({"target": {"ids": ["cam-3"]}}, 422, "E_NO_DEVICES"),
        ({"target": {"ids": ["cam-4"]}}, 422, "E_NO_DEVICES"),
        ({"surprise": 1}, 422, None),
        ({"target": {}}, 422, None),
        ({"strategy": "rolling"}, 422, None),
        ({"bake_seconds": -1}, 422, None),
        ({"gate": {"max_psi": 0}}, 422, None),
    ],
)
async def test_what_cannot_be_started(api: httpx2.AsyncClient, change: Any, status: int, code: str | None) -> None:
    answer = await api.post("/rollouts", json={**GOOD, **change})
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code


@pytest.mark.usefixtures("fleet")
async def test_two_rollouts_do_not_fight_over_a_device(api: httpx2.AsyncClient) -> None:
    first = (await api.post("/rollouts", json=GOOD)).json()["id"]
    answer = await api.post("/rollouts", json={**GOOD, "version": "1.0.0", "target": {"ids": ["cam-1"]}})
    assert answer.json()["code"] in ("E_ROLLOUT_OVERLAP", "E_NO_DEVICES")
    again = await api.post("/rollouts", json=GOOD)
    assert (again.status_code, again.json()["code"]) == (409, "E_ROLLOUT_OVERLAP")
    assert first in again.json()["hint"]


@pytest.mark.usefixtures("fleet")
async def test_every_verb_is_done_and_written_down(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = (await api.post("/rollouts", json=GOOD)).json()["id"]
    await world.driver.advance()
    for verb, state in (("pause", "paused"), ("resume", "running"), ("promote", "running"), ("abort", "rolling-back")):
        answer = await api.post(f"/rollouts/{rollout}/{verb}", json={})
        assert (answer.status_code, answer.json()["state"]) == (200, state), answer.text
    again = await api.post(f"/rollouts/{rollout}/pause", json={})
    assert (again.status_code, again.json()["code"]) == (409, "E_ROLLOUT_STATE")
    async with world.database.read() as tx:
        actions = (await tx.scalars(select(tables.AuditRow.action).order_by(tables.AuditRow.sequence))).all()
    assert actions == ["rollout.start", "rollout.pause", "rollout.resume", "rollout.promote", "rollout.abort"]


@pytest.mark.usefixtures("fleet")
async def test_abort_can_let_devices_keep_what_they_have(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = (await api.post("/rollouts", json=GOOD)).json()["id"]
    await world.driver.advance()
    found = (await api.post(f"/rollouts/{rollout}/abort", json={"rollback": False, "reason": "dusk"})).json()
    assert (found["state"], found["reason"]) == ("aborting", "aborted by ana: dusk")
    assert {it["state"] for it in found["deployments"] if not it["touched"]} == {"cancelled"}


@pytest.mark.usefixtures("fleet")
async def test_roles(api: httpx2.AsyncClient) -> None:
    api.headers["Authorization"] = "Bearer viewer"
    assert (await api.get("/rollouts")).status_code == 200
    assert (await api.post("/rollouts", json=GOOD)).status_code == 403
    del api.headers["Authorization"]
    assert (await api.get("/rollouts")).status_code == 401


@pytest.mark.usefixtures("fleet")
async def test_the_list_pages_newest_first(world: Any, api: httpx2.AsyncClient) -> None:
    ids = []
    for name in ("cam-1", "cam-2"):
        ids.append(
            (await api.post("/rollouts", json={**GOOD, "waves": ["100%"], "target": {"ids": [name]}})).json()["id"]
        )
        world.after(1)
    page = (await api.get("/rollouts?limit=1")).json()
    assert [it["id"] for it in page["items"]] == ids[1:]
    assert (page["items"][0]["devices"], page["items"][0]["waves"]) == (1, 1)
    rest = (await api.get("/rollouts", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert [it["id"] for it in rest["items"]] == ids[:1]
    assert (await api.get("/rollouts?cursor=e30")).status_code == 422
    assert (await api.get("/rollouts/ro-none")).json()["code"] == "E_ROLLOUT_UNKNOWN"
    assert len((await api.get("/rollouts?state=active")).json()["items"]) == 2
    assert (await api.get("/rollouts?state=completed")).json()["items"] == []
