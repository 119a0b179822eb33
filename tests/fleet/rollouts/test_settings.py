"""What the keys of the sections `deployment` and `monitoring` do to a rollout, from the settings to the devices."""

from typing import Any

import httpx2
import pytest

from tests.fleet.rollouts.telling import Teller


async def started(world: Any, api: httpx2.AsyncClient, **body: Any) -> str:
    for name in ("cam-1", "cam-2", "cam-3", "cam-4"):
        await world.device(name)
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    answer = await api.post("/rollouts", json={"model": "digits", "version": "2.0.0", **body})
    assert answer.status_code == 201, answer.text
    await world.driver.advance()
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("sections", "told"),
    [({}, 4), ({"deployment": {"max_concurrent_deployments": 2}}, 2)],
)
async def test_no_more_devices_are_at_work_than_max_concurrent_deployments(
    world: Any, api: httpx2.AsyncClient, told: int
) -> None:
    rollout = await started(world, api, waves=["100%"])
    assert len(world.announcer.devices) == told
    if told < 4:
        await world.report(world.announcer.devices[0], rollout, "committed", version="2.0.0")
        await world.driver.advance()
        assert len(world.announcer.devices) == told + 1


@pytest.mark.parametrize(
    ("sections", "state"),
    [({}, "running"), ({"deployment": {"deployment_timeout_minutes": 1}}, "rolling-back")],
)
async def test_a_device_has_deployment_timeout_minutes_and_no_longer(
    world: Any, api: httpx2.AsyncClient, state: str
) -> None:
    rollout = await started(world, api, waves=["1", "100%"])
    (canary,) = world.announcer.devices
    await world.report(canary, rollout, "fetching")
    world.after(61)
    await world.driver.advance()
    view = await world.view(rollout)
    assert view.state == state
    assert ("E_TIMEOUT" in str(view.reason)) == (state == "rolling-back")


@pytest.mark.parametrize(
    ("sections", "back", "state"),
    [({}, True, "rolled-back"), ({"deployment": {"auto_rollback_on_failure": False}}, False, "aborted")],
)
async def test_auto_rollback_on_failure_calls_back_who_has_it(
    world: Any, api: httpx2.AsyncClient, back: bool, state: str
) -> None:
    rollout = await started(world, api, waves=["2", "100%"])
    good, bad = world.announcer.devices
    await world.report(good, rollout, "committed", version="2.0.0")
    await world.serve(good, "2.0.0")
    await world.report(bad, rollout, "rolled-back", reason="E_PROBATION_CRASH")
    for _ in range(3):
        await world.driver.advance()
    assert (await world.assigned(good))[0] == (2 if back else 1)
    if back:
        await world.report(good, rollout, "committed", version="1.0.0")
        await world.serve(good, "1.0.0")
        await world.driver.advance()
    assert (await world.view(rollout)).state == state


@pytest.mark.parametrize(
    ("sections", "said", "stopped_by"),
    [
        ({}, {"failed": 60, "slow": 340}, "requests failed"),
        ({"monitoring": {"error_rate_threshold": 0.3}}, {"failed": 60, "slow": 340}, None),
        ({}, {"slow": 400}, None),
        ({"monitoring": {"latency_threshold_ms": 50}}, {"slow": 400}, "p95"),
    ],
)
async def test_thresholds_of_errors_and_latency_stop_a_rollout(
    world: Any, api: httpx2.AsyncClient, said: dict[str, int], stopped_by: str | None
) -> None:
    rollout = await started(world, api, waves=["1", "100%"], bake_seconds=600)
    (canary,) = world.announcer.devices
    await world.report(canary, rollout, "committed", version="2.0.0")
    await world.serve(canary, "2.0.0")
    world.after(60)
    await Teller(world).tell(canary, "2.0.0", **said)
    await world.driver.advance()
    view = await world.view(rollout)
    assert (view.state == "running") == (stopped_by is None)
    if stopped_by is not None:
        assert stopped_by in str(view.reason)
