"""Silences, channels, deliveries and the test of a channel over REST; the alert on revoked tokens."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from fleet.alerts import desk
from fleet.alerts.driver import AlertDriver
from fleet.parts import Manager
from fleet.store import tables
from tests.fleet import conftest as parts
from tests.simulators.receivers import WebReceiver

SECRET = "a-secret-of-sixteen-signs"


@pytest.fixture
async def web() -> AsyncIterator[WebReceiver]:
    found = WebReceiver()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def settings(web: WebReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager of this test has a webhook; ask for it before `manager`."""
    ordinary = parts.settings_in
    channels = {"ops": {"kind": "webhook", "url": web.url, "secret": SECRET}}
    alerts = {"notification_channels": ["email", "ops"], "group_wait_seconds": 0}
    monkeypatch.setattr(parts, "settings_in", lambda folder: ordinary(folder, channels=channels, alerts=alerts))


async def alert(manager: Manager, **changes: Any) -> str:
    values = {
        "kind": "drift",
        "scope": "fleet",
        "subject": "digits@1 [x]*",
        "severity": "high",
        "text": "t",
        "body": {},
    }
    async with manager.database.write() as tx:
        return (await desk.open_alert(tx, **(values | changes), now=manager.clock.now())).id  # type: ignore[arg-type]


async def state_of(manager: Manager, name: str) -> str:
    await AlertDriver(manager).look()
    async with manager.database.read() as tx:
        return (await tx.get_one(tables.Alert, name)).state


async def test_silence_one_alert_and_end_that_again(manager: Manager, admin: httpx2.AsyncClient) -> None:
    name, other = await alert(manager), await alert(manager, subject="digits@1 x")
    made = await admin.post("/api/v1/silences", json={"alert": name, "seconds": 3600, "comment": "works"})
    assert made.status_code == 201, made.text
    assert made.json()["matcher"]["subject"] == "digits@1 [[]x][*]"
    assert (await state_of(manager, name), await state_of(manager, other)) == ("silenced", "open")
    assert [one["id"] for one in (await admin.get("/api/v1/alerts?state=silenced")).json()["items"]] == [name]
    (listed,) = (await admin.get("/api/v1/silences")).json()["items"]
    assert listed == made.json()
    ended = await admin.delete(f"/api/v1/silences/{listed['id']}")
    assert ended.json()["ended_at"] is not None
    assert (await admin.delete(f"/api/v1/silences/{listed['id']}")).json() == ended.json()
    assert await state_of(manager, name) == "open"
    assert (await admin.get("/api/v1/silences")).json()["items"] == []
    assert len((await admin.get("/api/v1/silences?state=all")).json()["items"]) == 1
    actions = [row["action"] for row in (await admin.get("/api/v1/audit")).json()["items"]]
    assert actions[:2] == ["silence.remove", "silence.create"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"alert": "al-none", "seconds": 60, "comment": "c"}, 404),
        ({"seconds": 60, "comment": "c"}, 422),
        ({"alert": "al-1", "matcher": {"kind": "*"}, "seconds": 60, "comment": "c"}, 422),
        ({"matcher": {}, "seconds": 60, "comment": "c"}, 422),
        ({"matcher": {"kind": "*"}, "seconds": 60, "comment": ""}, 422),
        ({"matcher": {"kind": "*"}, "seconds": 10**9, "comment": "c"}, 422),
        ({"matcher": {"kind": "nonsense"}, "seconds": 60, "comment": "c"}, 422),
        ({"matcher": {"kind": "dri*"}, "seconds": 60, "comment": "c"}, 201),
        ({"matcher": {"kind": "*", "labels": {"site": "gate"}}, "seconds": 60, "comment": "c"}, 201),
    ],
)
async def test_a_silence_says_what_how_long_and_why(
    admin: httpx2.AsyncClient, body: dict[str, Any], status: int
) -> None:
    assert (await admin.post("/api/v1/silences", json=body)).status_code == status


async def test_an_unknown_silence_or_channel_is_named(admin: httpx2.AsyncClient) -> None:
    assert (await admin.delete("/api/v1/silences/si-none")).json()["code"] == "E_SILENCE_UNKNOWN"
    assert (await admin.post("/api/v1/channels/none/test")).json()["code"] == "E_CHANNEL_UNKNOWN"


async def test_channels_are_listed_without_secrets_and_tested(
    settings: None, manager: Manager, admin: httpx2.AsyncClient, web: WebReceiver
) -> None:
    answer = await admin.get("/api/v1/channels")
    assert SECRET not in answer.text
    assert "room=1" not in answer.text
    found = {one["name"]: one["state"] for one in answer.json()["items"]}
    assert found == {"ops": "ready", "email": "not set up"}
    done = (await admin.post("/api/v1/channels/ops/test")).json()
    assert (done["delivered"], done["answer"], len(web.posts)) == (True, "HTTP 200", 1)
    web.plan(404)
    failed = (await admin.post("/api/v1/channels/ops/test")).json()
    assert (failed["delivered"], failed["code"], failed["answer"]) == (False, "E_CHANNEL_DOWN", "HTTP 404: no")
    assert [row["action"] for row in (await admin.get("/api/v1/audit")).json()["items"]][:2] == ["channel.test"] * 2


async def test_the_delivery_log_pages_and_filters(
    settings: None, manager: Manager, admin: httpx2.AsyncClient, web: WebReceiver
) -> None:
    driver = AlertDriver(manager)
    names = [await alert(manager), await alert(manager, kind="security")]
    await driver.look()
    await driver.deliver("ops")
    first = (await admin.get("/api/v1/deliveries?limit=1")).json()
    second = (await admin.get(f"/api/v1/deliveries?limit=1&cursor={first['next_cursor']}")).json()
    both = [*first["items"], *second["items"]]
    assert sorted(one["alerts"][0] for one in both) == sorted(names)
    assert {(one["state"], one["attempts"], one["outcome"]) for one in both} == {("delivered", 1, "HTTP 200")}
    assert (await admin.get("/api/v1/deliveries?state=pending")).json()["items"] == []
    assert (await admin.get("/api/v1/deliveries?channel=email")).json()["items"] == []


async def test_a_revoked_token_that_is_used_raises_one_alert(manager: Manager, admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/api/v1/tokens", json={"name": "old", "role": "viewer"})).json()
    await admin.delete(f"/api/v1/tokens/{made['id']}")
    for _ in range(3):
        answer = await admin.get("/api/v1/me", headers={"Authorization": f"Bearer {made['token']}"})
        assert answer.status_code == 401
    await admin.get("/api/v1/me", headers={"Authorization": "Bearer never-was-one"})
    async with manager.database.read() as tx:
        (found,) = (await tx.scalars(select(tables.Alert))).all()
    assert (found.kind, found.severity, made["token"] in found.text) == ("security", "high", False)
