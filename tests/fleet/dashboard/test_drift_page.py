"""The Drift page: which release, how well it answers, how old that is, what moved."""

from datetime import timedelta
from typing import Any

import httpx2

from fleet.dashboard import drift_views
from fleet.store.tables import Release
from fleet.telemetry.figures import Figure, Standing, figures, fleet_figures
from fleet.telemetry.performance import Limits, Tally
from shared.sketches import Latency, latency_bin
from tests.fleet.dashboard.conftest import MODEL, World

LIMITS = Limits(accuracy=0.05, precision=0.05, recall=0.05, latency=0.2, degradation=0.1, min_samples=100)


def made(world: World, minutes: float = 38, correct: int = 372) -> Standing:
    """Accuracy of 93 % where 95 % were published, and a device that became slower."""
    confusion = [(it % 10, it % 10 if it < correct // 4 else (it + 1) % 10, 4) for it in range(100)]
    tally = Tally.of(400, correct, confusion, {str(latency_bin(52.0)): 500, str(latency_bin(70.0)): 60})
    past = Latency({latency_bin(40.0): 2000, latency_bin(48.0): 200})
    known = figures(LIMITS, tally, {"accuracy": 0.95, "precision": 0.94}, past)
    as_of = world.now - timedelta(minutes=minutes)
    return Standing(MODEL, "2.4.0", "fleet", as_of - timedelta(days=1), as_of, known)


async def filled(world: World, **more: Any) -> None:
    await world.campus()
    await world.add(
        world.drift("fleet", "2.4.0", "input.brightness", 0.24, "drifted"),
        world.drift("fleet", "2.4.0", "class.predicted", 0.01),
    )
    standing = made(world, **more)
    world.manager.standings.attach(lambda model: [standing] if model == MODEL else [])


async def test_page_shows_the_release_that_is_worst_off_with_its_performance_and_its_age(
    world: World, client: httpx2.AsyncClient
) -> None:
    await filled(world)
    page = (await client.get("/drift")).text
    assert "input.brightness moved away from the reference" in page
    assert "as of 38\N{NO-BREAK SPACE}min ago" in page
    for word in ("93.0 %", "95.0 %", "Accuracy", "Precision", "Recall", "Latency"):
        assert word in page, word
    assert "cam-031" in page
    assert f"flotilla drift report {MODEL}@2.4.0 --since 7d" in page
    assert f"/api/v1/drift/report?model={MODEL}&version=2.4.0&format=pdf" in page


async def test_another_release_and_another_feature_can_be_chosen(world: World, client: httpx2.AsyncClient) -> None:
    await filled(world)
    page = (await client.get("/drift", params={"model": MODEL, "version": "2.5.0", "feature": "input.contrast"})).text
    assert "as the reference" in page
    assert "input.contrast on all devices" in page
    assert "No window of telemetry tells yet" in page


async def test_a_withdrawn_release_is_marked_on_both_pages(world: World, client: httpx2.AsyncClient) -> None:
    await filled(world)
    for page in ("/drift", "/fleet"):
        assert "Withdrawn" not in (await client.get(page)).text
    async with world.manager.database.write() as tx:
        row = await tx.get_one(Release, (MODEL, "2.4.0"))
        row.state, row.withdrawn_at, row.withdrawn_reason = "withdrawn", world.now, "sees <sevens>"
    for page in ("/drift", "/fleet"):
        text = (await client.get(page)).text
        assert "Withdrawn" in text, page
        assert "sees &lt;sevens&gt;" in text
    told = (await client.get("/api/v1/drift")).json()["withdrawn"]
    assert told == {f"{MODEL}@2.4.0": "sees <sevens>"}


async def test_page_without_any_verdict_says_so(world: World, client: httpx2.AsyncClient) -> None:
    page = (await client.get("/drift", params={"model": "<script>"})).text
    assert "nothing was compared yet" in page
    assert "<script>" not in page.replace('<script src="', "").replace("<script defer", "")


async def test_rest_tells_the_same_figures(world: World, client: httpx2.AsyncClient) -> None:
    await filled(world)
    said = (await client.get(f"/api/v1/drift/{MODEL}")).json()["performance"]
    assert [it["scope"] for it in said] == ["fleet"]
    assert [it["metric"] for it in said[0]["figures"]] == ["accuracy", "precision", "recall", "latency"]
    assert said[0]["figures"][0]["state"] in ("ok", "watch")


def test_an_interval_is_drawn_within_its_picture_whatever_the_numbers() -> None:
    for value, low, high, was in ((0.0, 0.0, 0.0, 0.0), (1.0, 0.99, 1.0, 0.2), (0.5, None, None, None)):
        one = Figure("accuracy", value, low, high, was, 0.05, 200, 100, "ok")
        drawn = drift_views.measured(one)
        assert drawn.at is not None
        assert 0 <= drawn.at <= drift_views.WIDTH
        assert drawn.was is None or 0 <= drawn.was <= drift_views.WIDTH
        assert drawn.span is None or drawn.span[0] + drawn.span[1] <= drift_views.WIDTH


def test_figures_say_worse_only_when_it_is_certain() -> None:
    sides = [(Tally.of(400, 300, [(0, 0, 300), (0, 1, 100)], {"120": 10}), {})]
    found = {one.metric: one for one in fleet_figures(LIMITS, sides, {"accuracy": 0.95})}
    assert (found["accuracy"].state, found["latency"].state) == ("worse", "collecting")
    assert found["accuracy"].low is not None
    assert found["accuracy"].low < 0.75 < (found["accuracy"].high or 0)
    few = {one.metric: one for one in figures(LIMITS, Tally.of(20, 2, [], {}), {"accuracy": 0.95}, Latency({}))}
    assert few["accuracy"].state == "collecting"
    assert "20 of 100 labelled answers" in few["accuracy"].text


def test_new_devices_without_a_past_do_not_count_as_slower() -> None:
    fast, slow = str(latency_bin(20.0)), str(latency_bin(200.0))
    old = (Tally.of(0, 0, [], {fast: 500}), {latency_bin(20.0): 5000})
    new = (Tally.of(0, 0, [], {slow: 500}), {})
    latency = next(one for one in fleet_figures(LIMITS, [old, new], {}) if one.metric == "latency")
    assert latency.state == "ok"
    assert latency.samples == 500
