import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from fleet.rollouts.driver import RolloutDriver
from fleet.store import alerts, tables
from shared.errors import RefusedError

T0 = datetime(2026, 1, 1, tzinfo=UTC)


async def started(world: Any, api: httpx2.AsyncClient, serving: str | None = "1.0.0", **body: Any) -> str:
    for name in ("cam-1", "cam-2", "cam-3"):
        await world.device(name, serving)
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    asked = {"model": "digits", "version": "2.0.0", "waves": ["1", "100%"], "bake_seconds": 10, **body}
    answer = await api.post("/rollouts", json=asked)
    assert answer.status_code == 201, answer.text
    await world.driver.advance()
    return str(answer.json()["id"])


async def canary_of(world: Any, rollout: str) -> str:
    return next(it.device for it in (await world.view(rollout)).deployments if it.wave == 1)


def custom(assigned: str) -> dict[str, Any]:
    (target,) = json.loads(assigned)["signed"]["targets"].values()
    return dict(target["custom"])


async def test_the_canary_gets_a_signed_assignment_and_the_others_nothing(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = await started(world, api)
    canary = await canary_of(world, rollout)
    assert world.announcer.devices == [canary]
    version, assigned = await world.assigned(canary)
    assert version == 1
    said = custom(assigned)
    assert (said["device"], said["version"], said["rollout"]) == (canary, "2.0.0", rollout)
    assert [await world.assigned(it) for it in {"cam-1", "cam-2", "cam-3"} - {canary}] == [(0, ""), (0, "")]


async def test_a_whole_rollout_from_reports_alone(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = await started(world, api)
    canary = await canary_of(world, rollout)
    await world.report(canary, rollout, "fetching", fetched_bytes=3, total_bytes=10)
    await world.driver.advance()
    view = await world.view(rollout)
    shown = next(it for it in view.deployments if it.device == canary)
    assert (shown.state, shown.fetched_bytes, shown.total_bytes, shown.previous) == ("fetching", 3, 10, "1.0.0")
    assert view.waves[0].sub == "0/1 healthy, then bake 10 s"
    await world.report(canary, rollout, "committed", version="2.0.0")
    await world.serve(canary, "2.0.0")
    await world.driver.advance()
    assert (await world.view(rollout)).bake_left_seconds == 10
    world.after(10)
    await world.driver.advance()
    assert sorted(world.announcer.devices) == ["cam-1", "cam-2", "cam-3"]
    for name in {"cam-1", "cam-2", "cam-3"} - {canary}:
        await world.report(name, rollout, "committed", version="2.0.0")
    await world.driver.advance()
    world.after(10)
    await world.driver.advance()
    view = await world.view(rollout)
    assert (view.state, view.counts.committed, view.previous) == ("completed", 3, ("1.0.0",))
    late = await api.post(f"/rollouts/{rollout}/abort", json={})
    assert (late.status_code, late.json()["code"]) == (409, "E_ROLLOUT_STATE")
    assert "roll back" in late.json()["hint"]
    assert (await world.view(rollout)).state == "completed"
    assert [wave.sub for wave in view.waves] == ["1/1 healthy, baked 10 s", "2/2 healthy, baked 10 s"]
    assert view.timeline[0].text == "Completed: 3 of 3 devices on 2.0.0"
    assert view.actions == ("rollback",)


async def test_a_canary_that_took_it_back_stops_everything(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = await started(world, api)
    canary = await canary_of(world, rollout)
    await world.report(canary, rollout, "rolled-back", reason="E_PROBATION_ACCURACY", detail="accuracy 0.31")
    await world.driver.advance()
    await world.driver.advance()
    view = await world.view(rollout)
    assert view.state == "rolled-back"
    assert "E_PROBATION_ACCURACY: accuracy 0.31" in str(view.reason)
    assert [it.device for it in view.deployments if it.touched] == [canary]
    shown = next(it for it in view.deployments if it.device == canary)
    assert (shown.state, shown.reason, shown.detail) == ("rolled-back", "E_PROBATION_ACCURACY", "accuracy 0.31")
    version, assigned = await world.assigned(canary)
    assert (version, custom(assigned)["version"]) == (2, "1.0.0")
    async with world.database.read() as tx:
        (alert,) = await alerts.live(tx, kind="rollout")
    assert alert.severity == "high"
    assert rollout in alert.subject


async def test_a_manual_abort_calls_back_those_that_have_it_and_those_on_the_way(
    world: Any, api: httpx2.AsyncClient
) -> None:
    rollout = await started(world, api, waves=["2", "100%"])
    first, second = [it.device for it in (await world.view(rollout)).deployments if it.wave == 1]
    await world.report(first, rollout, "committed", version="2.0.0")
    await world.serve(first, "2.0.0")
    await world.report(second, rollout, "fetching")
    answer = await api.post(f"/rollouts/{rollout}/abort", json={"reason": "dusk"})
    assert answer.json()["state"] == "rolling-back"
    assert answer.json()["reason"] == "aborted by ana: dusk"
    await world.driver.advance()
    assert {(await world.assigned(name))[0] for name in (first, second)} == {2}
    await world.report(first, rollout, "committed", version="1.0.0")
    await world.serve(first, "1.0.0")
    await world.driver.advance()
    assert (await world.view(rollout)).state == "rolling-back"
    await world.report(second, rollout, "committed", version="1.0.0")
    await world.driver.advance()
    view = await world.view(rollout)
    assert (view.state, view.counts.rolled_back, view.counts.untouched) == ("rolled-back", 2, 1)
    async with world.database.read() as tx:
        assert await alerts.live(tx, kind="rollout") == []  # the person knows


class PowerCutError(BaseException):
    """The manager dies here."""


@pytest.mark.parametrize("where", ["before the debts are paid", "before the announcement", "inside the payment"])
async def test_a_manager_that_dies_goes_on_where_it_was_and_doubles_nothing(
    world: Any, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def dies(*_: Any, **__: Any) -> None:
        raise PowerCutError

    def dies_at_once(*_: Any, **__: Any) -> str:
        raise PowerCutError

    target = {
        "before the debts are paid": (world.driver, "perform", dies),
        "before the announcement": (world.announcer, "announce", dies),
        "inside the payment": (world.director, "assign", dies_at_once),
    }[where]
    if where == "before the debts are paid":
        calls = []

        async def second_time(*_: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise PowerCutError

        target = (world.driver, "perform", second_time)
    monkeypatch.setattr(*target)
    with pytest.raises(PowerCutError):
        await started(world, api)
    monkeypatch.undo()
    world.driver = RolloutDriver(world)
    await world.driver.advance()
    await world.driver.advance()
    async with world.database.read() as tx:
        debts = (await tx.scalars(select(tables.OwedAction))).all()
        top = await tx.scalar(select(func.max(tables.Device.assignment)))
        total = await tx.scalar(select(func.sum(tables.Device.assignment)))
    assert [debt.kind for debt in debts] == ["announce"]
    assert debts[0].performed_at is not None
    assert (top, total) == (1, 1)


async def test_a_release_that_cannot_be_assigned_fails_its_own_rollout_only(
    world: Any, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EscrowBrokenError(RefusedError):
        code = "E_ESCROW_TEST"

    def refuses(*_: Any, **__: Any) -> str:
        raise EscrowBrokenError("the content key does not open")

    monkeypatch.setattr(type(world.director), "assign", refuses)
    rollout = await started(world, api)
    await world.driver.advance()
    view = await world.view(rollout)
    assert "E_ESCROW_TEST" in str(view.reason)
    assert view.state in ("rolling-back", "rolled-back")


async def test_telemetry_of_the_canary_feeds_the_gates(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = await started(world, api)
    canary = await canary_of(world, rollout)
    await world.report(canary, rollout, "committed", version="2.0.0")
    other = min({"cam-1", "cam-2", "cam-3"} - {canary})
    async with world.database.write() as tx:
        for sequence in range(100):
            tx.add(window(canary, sequence, "2.0.0", errors={"internal": 3}, latency={"180": 17}))
            tx.add(window(other, sequence, "1.0.0", errors={}, latency={"150": 20}))
    await world.driver.advance()
    view = await world.view(rollout)
    assert view.state == "rolling-back"
    assert view.reason == "15.00% of 2000 requests failed, at least 12.70% (limit 5.00%)"
    gates = {gate.name: gate for gate in view.gates}
    assert gates["errors"].result == "fail"
    assert (gates["errors"].value_text, gates["errors"].reference_text, gates["errors"].rule) == (
        "15 %",
        "0 %",
        "≤ 5 %",
    )
    assert len(gates["latency p95"].history) == 34
    assert gates["latency p95"].value == pytest.approx(1.02**180.5)


def window(device: str, sequence: int, version: str, errors: dict[str, int], latency: dict[str, int]) -> tables.Window:
    return tables.Window(
        device_id=device, stream="s", sequence=sequence, model="digits", version=version, start=T0, end=T0,
        received_at=T0, requests=20, failed=sum(errors.values()), body={
            "device": device, "stream": "s", "sequence": sequence, "at": T0.isoformat(), "boot": "b",
            "model": "digits", "version": version, "manifest": "0" * 64, "phase": "serving",
            "start": T0.isoformat(), "end": T0.isoformat(), "requests": 20, "errors": errors, "latency": latency,
        },
    )  # fmt: skip


async def test_blue_green_stages_by_signed_orders_and_switches_by_newer_ones(
    world: Any, api: httpx2.AsyncClient
) -> None:
    rollout = await started(world, api, strategy="blue-green", waves=None)
    names = ("cam-1", "cam-2", "cam-3")
    assert [custom((await world.assigned(name))[1])["activate"] for name in names] == ["later"] * 3
    for name in names:
        await world.report(name, rollout, "self-tested", reason="E_WAITS_FOR_SWITCH")
    await world.driver.advance()
    assert ["activate" in custom((await world.assigned(name))[1]) for name in names] == [False] * 3
    assert [(await world.assigned(name))[0] for name in names] == [2, 2, 2]
    view = await world.view(rollout)
    assert {it.state for it in view.deployments} == {"self-tested"}
    for name in names:
        await world.report(name, rollout, "committed", version="2.0.0")
        await world.serve(name, "2.0.0")
    await world.driver.advance()
    world.after(10)
    await world.driver.advance()
    assert (await world.view(rollout)).state == "completed"


async def test_devices_that_come_into_the_target_join_the_waves_that_are_not_out(
    world: Any, api: httpx2.AsyncClient
) -> None:
    rollout = await started(world, api)
    await world.device("cam-4")
    await world.device("cam-5", serving="2.0.0")
    world.after(11)
    await world.driver.advance()
    view = await world.view(rollout)
    assert [(it.device, it.wave, it.waits_for) for it in view.deployments if it.device > "cam-3"] == [
        ("cam-4", 2, "wave Fleet")
    ]
    assert [wave.total for wave in view.waves] == [1, 3]
    assert "cam-4" not in world.announcer.devices


async def test_what_is_proven_bad_on_a_class_is_left_out_until_it_is_forced(
    world: Any, api: httpx2.AsyncClient
) -> None:
    await world.device("cam-0", hardware="orin")
    rollout = await started(world, api, waves=["100%"])
    await world.report("cam-0", rollout, "rolled-back", reason="E_PROBATION_ACCURACY", detail="0.31")
    for name in ("cam-1", "cam-2", "cam-3"):
        await world.report(name, rollout, "committed", version="2.0.0")
    await world.driver.advance()
    assert (await world.view(rollout)).state == "rolling-back"
    for name in ("cam-0", "cam-1", "cam-2", "cam-3"):
        await world.report(name, rollout, "committed", version="1.0.0")
    await world.driver.advance()
    asked = {"model": "digits", "version": "2.0.0"}
    plan = (await api.post("/rollouts", json=asked, params={"dry_run": True})).json()
    (left,) = plan["excluded"]
    assert (left["device"], left["hardware"], left["reason"], left["rollout"]) == (
        "cam-0", "orin", "E_PROBATION_ACCURACY", rollout,
    )  # fmt: skip
    alone = {**asked, "target": {"filter": "hardware:orin"}}
    refused = await api.post("/rollouts", json=alone)
    assert (refused.status_code, refused.json()["code"]) == (409, "E_PROVEN_BAD")
    forced = await api.post("/rollouts", json={**alone, "force": True})
    assert forced.status_code == 201
    await world.driver.advance()
    assert custom((await world.assigned("cam-0"))[1])["force"] is True
    await world.report("cam-0", forced.json()["id"], "committed", version="2.0.0")
    await world.driver.advance()
    world.after(400)
    await world.report("cam-0", forced.json()["id"], "committed", version="2.0.0")
    await world.driver.advance()
    assert (await world.view(forced.json()["id"])).state == "completed"
    await world.serve("cam-0", "1.0.0")
    assert (await api.post("/rollouts", json=alone)).status_code == 201


async def test_an_emergency_needs_another_person(world: Any, api: httpx2.AsyncClient) -> None:
    rollout = await started(world, api, strategy="all-at-once", waves=None)
    assert world.announcer.devices == []
    own = await api.post(f"/rollouts/{rollout}/approve")
    assert (own.status_code, own.json()["code"]) == (403, "E_OWN_APPROVAL")
    operator = await api.post(f"/rollouts/{rollout}/approve", headers={"Authorization": "Bearer operator"})
    assert operator.status_code == 403
    aborted = await api.post(f"/rollouts/{rollout}/abort", json={"effects": ["stop-new"]})
    assert aborted.json()["state"] == "aborted"


async def test_four_eyes_are_those_of_two_people_whatever_their_tokens_are_called(
    world: Any, api: httpx2.AsyncClient
) -> None:
    def by(name: str, person: str) -> dict[str, str]:
        return {"Authorization": f"Bearer admin {name} {person}"}

    for name in ("cam-1", "cam-2"):
        await world.device(name)
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    asked = {"model": "digits", "version": "2.0.0", "require_approval": True}
    made = (await api.post("/rollouts", json=asked, headers=by("ann/ci", "ann"))).json()
    assert made["created_by"] == "ann/ci"
    for name in ("ann", "ann/other"):
        own = await api.post(f"/rollouts/{made['id']}/approve", headers=by(name, "ann"))
        assert (own.status_code, own.json()["code"]) == (403, "E_OWN_APPROVAL")
        assert own.json()["detail"].startswith("ann started")
    other = await api.post(f"/rollouts/{made['id']}/approve", headers=by("bo/ci", "bo"))
    assert other.json()["state"] == "running"
    assert "Approved by bo" in str(other.json())


async def test_rollouts_share_their_places_and_the_more_urgent_goes_first(world: Any, api: httpx2.AsyncClient) -> None:
    for name in ("cam-4", "cam-5", "cam-6", "cam-7"):
        await world.device(name)
    asked = {"waves": ["100%"], "target": {"filter": "not (cam-6 or cam-7)"}, "timeout_seconds": 999}
    first = await started(world, api, **asked)
    assert len(world.announcer.devices) == 5
    urgent = {"model": "digits", "version": "2.0.0", "priority": "high", "target": {"ids": ["cam-6", "cam-7"]}}
    second = (await api.post("/rollouts", json={**urgent, "waves": ["100%"]})).json()
    await world.driver.advance()
    view = await world.view(second["id"])
    assert {it.waits_for for it in view.deployments} == {"a place: 5 of 5 devices are at work"}
    await world.report("cam-1", first, "committed", version="2.0.0")
    await world.driver.advance()
    assert len(world.announcer.devices) == 6
    assert world.announcer.devices[-1] in ("cam-6", "cam-7")


async def test_devices_with_nothing_before_are_called_off_by_a_signed_order(
    world: Any, api: httpx2.AsyncClient
) -> None:
    rollout = await started(world, api, serving=None, waves=["100%"])
    await world.report("cam-1", rollout, "committed", version="2.0.0")
    await world.serve("cam-1", "2.0.0")
    await world.report("cam-2", rollout, "fetching", fetched_bytes=3, total_bytes=10)
    assert (await api.post(f"/rollouts/{rollout}/rollback", json={"reason": "bad"})).status_code == 200
    await world.driver.advance()
    said = {name: (await world.assigned(name)) for name in ("cam-1", "cam-2", "cam-3")}
    assert {name: number for name, (number, _) in said.items()} == {"cam-1": 1, "cam-2": 2, "cam-3": 2}
    assert {custom(text).get("activate") for _, text in said.values()} == {None, "never"}
    assert custom(said["cam-3"][1])["version"] == "2.0.0"
    for name in ("cam-2", "cam-3"):
        await world.report(name, rollout, "cancelled", reason="E_CANCELLED")
    await world.driver.advance()
    view = await world.view(rollout)
    assert {it.device: it.state for it in view.deployments} == {
        "cam-1": "committed", "cam-2": "rolled-back", "cam-3": "rolled-back"
    }  # fmt: skip
    assert view.state == "rolled-back"
