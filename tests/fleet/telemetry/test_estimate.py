"""Accuracy judged by confidence: what it says, when it says nothing, and that nothing decides by it."""

import ast

import numpy as np
import pytest
from sqlalchemy import update

from fleet.store import tables
from fleet.telemetry import baselines
from fleet.telemetry.driver import DriftDriver
from fleet.telemetry.estimate import estimate
from shared.sketches import CONFIDENCE, RIGHT, Baseline, FeatureBaseline
from tests.architecture.test_modules import MODULES, imported, tree_of
from tests.fleet.telemetry.world import T0, World

EVERY = (2, 100, 100, 100, 100, 2)
GOOD = (0, 50, 80, 100, 100, 2)


def test_it_is_the_mean_of_the_rates_of_the_bins_weighted_by_the_window() -> None:
    found = estimate((0, 300, 100, 0, 0, 0), GOOD, EVERY, least=100)
    assert found is not None
    assert found.accuracy == pytest.approx(0.75 * 50 / 102 + 0.25 * 80 / 100)
    assert found.reference == pytest.approx(332 / 404)
    assert found.samples == 400
    assert "estimate" in found.text
    assert "no measurement" in found.text
    assert found.document()["estimate"] is True


def test_a_window_like_the_reference_is_as_right_as_the_reference() -> None:
    found = estimate(tuple(3 * number for number in EVERY), GOOD, EVERY, least=100)
    assert found is not None
    assert found.accuracy == pytest.approx(found.reference)


def test_its_error_is_what_chance_makes_of_it() -> None:
    """Reference and window drawn anew a thousand times: the truth lies within the error in 95 % of them."""
    rng = np.random.default_rng(4)
    shares, rates = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.7, 0.9, 0.99])
    within = []
    for _ in range(1000):
        every, counts = rng.multinomial(500, shares), rng.multinomial(400, shares[::-1])
        found = estimate(counts.tolist(), rng.binomial(every, rates).tolist(), every.tolist(), least=100)
        assert found is not None
        within.append(abs(rng.binomial(counts, rates).sum() / 400 - found.accuracy) <= found.error)
    assert 0.93 <= np.mean(within) <= 0.985


def test_without_enough_answers_or_reference_it_says_nothing() -> None:
    assert estimate((0, 99, 0, 0, 0, 0), GOOD, EVERY, least=100) is None
    assert estimate((0, 0), (0, 0), (0, 0), least=0) is None
    assert estimate((500, 500), (3, 4), (9, 9), least=100) is None
    with pytest.raises(ValueError, match="different bins"):
        estimate((0, 500), GOOD, EVERY, least=100)


EDGES = (0.5, 0.7, 0.8, 0.9, 0.99)


def baseline(good: tuple[int, ...] | None, edges: tuple[float, ...] = EDGES) -> Baseline:
    features = [FeatureBaseline(name=CONFIDENCE, group="output", kind="quantity", edges=EDGES, counts=EVERY)]
    if good is not None:
        features.append(FeatureBaseline(name=RIGHT, group="right", kind="quantity", edges=edges, counts=good))
    return Baseline(model="digits", version="1.0.0", samples=404, features=tuple(features))


def test_right_answers_are_read_from_a_baseline_and_are_no_feature_of_it() -> None:
    body = baseline(GOOD).model_dump(mode="json")
    assert baselines.right(body) == (GOOD, EVERY)
    assert set(baselines.references(body)) == {CONFIDENCE}
    assert baselines.right(baseline(None).model_dump(mode="json")) is None
    assert baselines.right(baseline(GOOD, (*EDGES[:-1], 0.995)).model_dump(mode="json")) is None
    assert baselines.right({}) is None


async def told(world: World, counts: tuple[int, ...]) -> tables.DriftState:
    """The verdict on confidence after a window with these counts."""
    digest = baseline(None).features[0].digest
    await world.deliver(
        "cam-1", 0.5, 0, world.clock.at, features={CONFIDENCE: {"edges": digest, "counts": list(counts)}}
    )
    await world.driver.evaluate()
    async with world.database.read() as tx:
        row = await tx.get(tables.DriftState, ("device:cam-1", "digits", "1.0.0", CONFIDENCE))
    assert row is not None
    return row


@pytest.mark.parametrize("good", [GOOD, (0,) * len(EVERY), None])
async def test_an_estimate_is_shown_and_changes_neither_verdict_nor_alerts(
    world: World, good: tuple[int, ...] | None
) -> None:
    """The second case says that every answer is wrong, of a window that is as the reference."""
    async with world.database.write() as tx:
        await tx.execute(update(tables.Release).values(baseline=baseline(good).model_dump(mode="json")))
    world.driver = DriftDriver(world)
    row = await told(world, EVERY)
    assert row.state == "ok"
    assert await world.alerts() == []
    shown = row.body.get("accuracy_estimate")
    if good is None:
        assert shown is None
    else:
        assert shown["accuracy"] == pytest.approx(sum(good) / sum(EVERY), abs=1e-4)
        assert (shown["estimate"], shown["samples"]) == (True, 404)
    assert world.clock.at >= T0


def test_nothing_that_decides_reads_it() -> None:
    """Only the driver computes it; of what it stores, only what is shown to people may speak."""
    users = [name for name, path in MODULES.items() if "fleet.telemetry.estimate" in imported(tree_of(path))]
    assert users == ["fleet.telemetry.driver"]
    readers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value == "accuracy_estimate"
    }
    deciding = ("fleet.rollouts.", "fleet.alerts.", "fleet.telemetry.", "agent.")
    assert {name for name in readers if name.startswith(deciding)} == {"fleet.telemetry.driver"}
