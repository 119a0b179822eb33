"""Alerts by facts that the manager has anyway."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet.alerts import expected
from fleet.alerts.expected import Ending, Memory, Progress, Served
from fleet.alerts.watch import AlertWatch
from fleet.store import tables
from fleet.store.database import Database
from tests.fleet.alerts.conftest import T0, Make, World
from tests.fleet.telemetry.conftest import either, postgres

__all__ = ["either", "postgres"]  # fixtures
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("what", "days", "life", "severity"),
    [
        ("token ci (to-1)", 14, 90, None),
        ("token ci (to-1)", 13, 90, "medium"),
        ("token ci (to-1)", 1, 90, "high"),
        ("token ci (to-1)", 1, 7, None),  # it was made for a week
        ("root", 13, None, "medium"),
        ("root", 0, None, "critical"),
        ("timestamp", 0.5, None, None),  # the manager renews it at half of its life
        ("timestamp", 0.2, None, "medium"),
        ("snapshot", -1, None, "critical"),
    ],
)
def test_what_runs_out_is_told_in_time(what: str, days: float, life: float | None, severity: str | None) -> None:
    ends = T0 + days * DAY
    one = Ending(what, ends - life * DAY if life else None, ends, "renew it")
    found = list(expected.expiring([one], T0, 14 * DAY))
    assert [wanted.severity for wanted in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("requests", "failed", "severity"), [(19, 19, None), (100, 5, None), (100, 6, "medium"), (100, 21, "high")]
)
def test_requests_that_fail_more_often_than_they_may_are_told(requests: int, failed: int, severity: str | None) -> None:
    found = list(expected.failing([Served("cam-1", "digits", "1.0.0", requests, failed)], 0.05))
    assert [wanted.severity for wanted in found] == ([severity] if severity else [])
    assert all(wanted.scope == "device:cam-1" and wanted.body["retraining"] is False for wanted in found)


def test_a_rollout_without_failures_is_no_matter() -> None:
    found = list(expected.stumbling([Progress("ro-1", "m", "1", 0, 9), Progress("ro-2", "m", "1", 2, 9)]))
    assert [wanted.subject for wanted in found] == ["ro-2 m@1"]


async def add(world: World, *rows: Any) -> None:
    async with world.database.write() as tx:
        for row in rows:
            tx.add(row)
            await tx.flush()


async def live(world: World) -> dict[str, str]:
    return {row.subject: row.state for row in await world.rows(tables.Alert)}


async def test_a_token_and_a_document_that_run_out_open_alerts_that_resolve_when_they_are_renewed(make: Make) -> None:
    world = await make()
    soon = (T0 + 2 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = json.dumps({"signed": {"expires": soon}}).encode()
    token = tables.Token(
        id="to-1", name="ci", role="viewer", token_hash="h", created_at=T0 - 90 * DAY, expires_at=T0 + DAY
    )
    odd = tables.Metadata(role="model-odd", version=1, data=b'{"signed": {}}')
    await add(world, token, tables.Metadata(role="targets", version=1, data=document), odd)
    watch = AlertWatch(world)
    await watch.look()
    await watch.look()
    assert await live(world) == {"token ci (to-1)": "open", "targets": "open"}
    async with world.database.write() as tx:
        (await tx.get_one(tables.Token, "to-1")).revoked_at = T0
    for _ in range(world.settings.alerts.clear_evaluations):
        assert (await live(world))["token ci (to-1)"] == "open"
        await watch.look()
    assert await live(world) == {"token ci (to-1)": "resolved", "targets": "open"}


async def test_failing_requests_and_failing_devices_open_alerts_and_others_are_left_alone(make: Make) -> None:
    world = await make()
    await world.device("cam-1")
    await world.alert(kind="performance", subject="digits@1.0.0 accuracy")
    window = tables.Window(
        device_id="cam-1", stream="s", sequence=1, model="digits", version="1.0.0", start=T0, end=T0, received_at=T0,
        requests=100, failed=30, body={},
    )  # fmt: skip
    rollout = tables.Rollout(
        id="ro-1", model="digits", version="1.0.0", strategy="canary", state="running", body={}, created_by="ana",
        created_at=T0, updated_at=T0,
    )  # fmt: skip
    deployment = tables.Deployment(rollout_id="ro-1", device_id="cam-1", wave=0, state="failed", since=T0)
    await add(world, window, rollout, deployment)
    watch = AlertWatch(world)
    await watch.look()
    opened = {"digits@1.0.0 accuracy": "open", "digits@1.0.0 errors": "open", "ro-1 digits@1.0.0": "open"}
    assert await live(world) == opened
    async with world.database.write() as tx:
        (await tx.get_one(tables.Rollout, "ro-1")).state = "completed"
    world.after(hours=2)
    for _ in range(world.settings.alerts.clear_evaluations):
        await watch.look()
    assert await live(world) == opened | {"digits@1.0.0 errors": "resolved"}


@pytest.mark.parametrize(("used", "severity"), [(80, None), (81, "medium"), (91, "high")])
def test_a_device_that_uses_more_of_its_memory_than_it_may_is_told(used: int, severity: str | None) -> None:
    found = list(expected.crowded([Memory("cam-1", used, 100), Memory("cam-2", 5, 0)], 0.8))
    assert [wanted.severity for wanted in found] == ([severity] if severity else [])
    assert all("81%" in wanted.text or "91%" in wanted.text for wanted in found)


def remembering(sequence: int, used: int | None, at: datetime) -> tables.Window:
    host = {} if used is None else {"memory_used_bytes": used * 2**20, "memory_total_bytes": 4000 * 2**20}
    return tables.Window(
        device_id="cam-1", stream="s", sequence=sequence, model="digits", version="1.0.0", start=at, end=at,
        received_at=at, requests=1, failed=0, body={"host": host},
    )  # fmt: skip


@pytest.mark.parametrize(("limit", "opened"), [(0.8, {"memory": "open"}), (0.95, {})])
async def test_memory_beyond_the_setting_raises_an_alert_that_ends_with_it(
    make: Make, limit: float, opened: dict[str, str]
) -> None:
    world = await make()
    monitoring = world.settings.monitoring.model_copy(update={"memory_usage_threshold": limit})
    world.settings = world.settings.model_copy(update={"monitoring": monitoring})
    await world.device("cam-1")
    early = (remembering(1, 200, T0 - timedelta(minutes=9)), remembering(2, 3600, T0 - timedelta(minutes=5)))
    await add(world, *early, remembering(3, None, T0))
    watch = AlertWatch(world)
    await watch.look()
    await watch.look()
    assert await live(world) == opened
    await add(world, remembering(4, 300, T0))
    for _ in range(world.settings.alerts.clear_evaluations):
        await watch.look()
    assert await live(world) == dict.fromkeys(opened, "resolved")


async def test_one_look_asks_the_same_of_both_databases(make: Make, either: str) -> None:
    world = await make()
    world.database = Database(either)
    await world.database.open()
    try:
        await world.device("cam-1")
        await add(world, remembering(1, 3600, T0 - timedelta(minutes=5)), remembering(2, None, T0))
        watch = AlertWatch(world)
        for _ in range(2):
            await watch.look()
        assert await live(world) == {"memory": "open"}
    finally:
        await world.database.close()


async def test_without_anything_to_say_nothing_is_written(make: Make) -> None:
    world = await make()
    await AlertWatch(world).look()
    assert await world.rows(tables.Alert) == []
    assert world.hub.count == 0
