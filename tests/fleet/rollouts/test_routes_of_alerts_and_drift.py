from typing import Any

import httpx2

from fleet.alerts import desk
from fleet.store import tables
from shared.sketches import Baseline, FeatureBaseline


async def test_an_alert_from_open_to_resolved(world: Any, api: httpx2.AsyncClient) -> None:
    async with world.database.write() as tx:
        alert = await desk.open_alert(
            tx, kind="drift", scope="fleet", subject="s", severity="high", text="t", body={"psi": 1}, now=world.clock.at
        )
    (found,) = (await api.get("/alerts")).json()["items"]
    assert (found["id"], found["state"], found["body"]) == (alert.id, "open", {"psi": 1})
    assert (await api.post(f"/alerts/{alert.id}/ack", json={"note": "lamp"})).json()["acknowledged_by"] == "ana"
    assert (await api.post(f"/alerts/{alert.id}/resolve")).json()["state"] == "resolved"
    assert (await api.post(f"/alerts/{alert.id}/resolve")).json()["code"] == "E_ALERT_STATE"
    assert (await api.get("/alerts")).json()["items"] == []
    assert len((await api.get("/alerts?state=all")).json()["items"]) == 1
    assert (await api.get("/alerts/al-none")).status_code == 404
    api.headers["Authorization"] = "Bearer viewer"
    assert (await api.post(f"/alerts/{alert.id}/ack")).status_code == 403


async def test_drift_lists_short_and_shows_long(world: Any, api: httpx2.AsyncClient) -> None:
    async with world.database.write() as tx:
        tx.add(
            tables.DriftState(
                scope="fleet", model="digits", version="1.0.0", feature="f", state="ok", samples=9,
                body={"psi": 0.1, "counts": [1, 2]}, since=world.clock.at, updated_at=world.clock.at,
            )
        )  # fmt: skip
    (short,) = (await api.get("/drift")).json()["items"]
    assert "counts" not in short
    assert (short["psi"], short["since"]) == (0.1, "2026-01-01T00:00:00.000Z")
    (long,) = (await api.get("/drift/digits")).json()["items"]
    assert long["counts"] == [1, 2]
    assert (await api.get("/drift/other")).json()["items"] == []


async def test_baselines_are_shown_pinned_and_refused(world: Any, api: httpx2.AsyncClient) -> None:
    feature = FeatureBaseline(name="f", group="input", kind="quantity", edges=(0.5,), counts=(40, 60))
    await world.release("5.0.0", Baseline(model="digits", version="5.0.0", samples=100, features=(feature,)))
    assert (await api.get("/baselines")).json()["items"] == []
    missing = (await api.get("/baselines/digits/9.9.9")).json()
    assert (missing["code"], missing["title"] != "") == ("E_BASELINE_UNKNOWN", True)
    found = (await api.get("/baselines/digits/5.0.0")).json()
    assert (found["source"], found["pinned"]) == ("release", False)
    assert (await api.post("/baselines/digits/5.0.0/relearn", json={})).json()["code"] == "E_BASELINE_SAMPLES"
    assert (await api.post("/baselines/digits/5.0.0/pin")).json()["pinned"] is True
    assert (await api.post("/baselines/digits/5.0.0/relearn", json={})).json()["code"] == "E_BASELINE_PINNED"
    (listed,) = (await api.get("/baselines")).json()["items"]
    assert (listed["scope"], listed["pinned"], listed["chosen_by"]) == ("fleet", True, "ana")
    assert (await api.post("/baselines/digits/5.0.0/pin", json={"scope": "moon"})).status_code == 422
    api.headers["Authorization"] = "Bearer viewer"
    assert (await api.post("/baselines/digits/5.0.0/pin")).status_code == 403
