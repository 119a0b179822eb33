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


async def started(world: Any, api: httpx2.AsyncClient, **body: Any) -> str:
    for name in ("cam-1", "cam-2", "cam-3"):
        await world.device(name)
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
