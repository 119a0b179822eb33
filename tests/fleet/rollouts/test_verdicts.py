"""Each check on its own, what is kept of a verdict, and that the same numbers give the same verdict."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from fleet.rollouts import counting, gate, numbers, verdicts
from fleet.rollouts.checks import Check, Result
from fleet.rollouts.numbers import Numbers
from fleet.rollouts.states import DriftSign, Evidence, Hook, HookAnswer, Limits, Rollout, Vitals
from fleet.rollouts.trials import Amounts, Kind, Trials
from fleet.store import gates
from tests.fleet.rollouts.conftest import T0
from tests.fleet.rollouts.test_engine import at, evidence, rollout


def known(**changes: Any) -> Numbers:
    return replace(Numbers(T0, 0, Limits()), **changes)


def check(name: str, **changes: Any) -> Check | None:
    return next((it for it in gate.decide(known(**changes)) if it.name == name), None)


def result(name: str, **changes: Any) -> Result:
    found = check(name, **changes)
    assert found is not None
    return found.result


def compared(kind: Kind, candidate: float, control: float, **classes: Amounts) -> Trials:
    """10 and 190 due; 1.0 each of the classes."""
    amounts = classes or {"orin": Amounts(candidate, control, 100, 1900, 10, 190)}
    return Trials().after({kind: amounts}, {}, 0.1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mismatched": 2, "examined": 2}, Result.FAIL),
        ({"mismatched": 1, "examined": 1}, Result.PASS),  # one device may be odd
        ({"mismatched": 2, "examined": 40}, Result.PASS),
        ({"mismatched": 10, "examined": 40}, Result.FAIL),
    ],
)
def test_golden_outputs_on_several_devices(changes: Mapping[str, int], expected: Result) -> None:
    assert result("golden agreement", **changes) is expected


@pytest.mark.parametrize(
    ("labelled", "correct", "expected"),
    [(1000, 800, Result.FAIL), (1000, 900, Result.PASS), (99, 0, Result.PASS), (150, 132, Result.PASS)],
)
def test_accuracy_is_judged_for_certain_and_on_enough_answers(labelled: int, correct: int, expected: Result) -> None:
    assert result("accuracy", accuracy=0.95, candidate=Vitals(labelled=labelled, correct=correct)) is expected


def test_what_cannot_be_judged_is_not_listed() -> None:
    names = {it.name for it in gate.decide(known())}
    assert names == {"failures", "success", "errors", "latency p95", "drift PSI", "restarts", "silence"}


@pytest.mark.parametrize(("failed", "expected"), [(8, Result.PASS), (9, Result.PASS), (60, Result.FAIL)])
def test_errors_break_their_limit_for_certain_only(failed: int, expected: Result) -> None:
    assert result("errors", candidate=Vitals(requests=150, failed=failed)) is expected


@pytest.mark.parametrize(
    ("bad", "ended", "usual", "expected"),
    [(2, 100, 0.02, Result.PASS), (9, 100, 0.02, Result.FAIL), (3, 3, 0.05, Result.FAIL), (1, 1, 0.05, Result.PASS)],
)
def test_failures_beyond_the_usual(bad: int, ended: int, usual: float, expected: Result) -> None:
    limits = Limits(criteria=())
    assert result("failures v usual", limits=limits, bad={"failed": bad}, ended=ended, usual_failures=usual) is expected


def test_a_comparison_tells_events_expectation_and_proof() -> None:
    found = check("errors v control", trials=compared("errors", 30, 190))
    assert found is not None
    assert found.result is Result.FAIL
    assert (found.value, found.limit, found.reference) == (pytest.approx(3.0), pytest.approx(1.1), 1.0)
    log_e = float(counting.evidence(counting.gains(30, 190, 0.05, tolerance=0.1)))
    assert found.e_value == pytest.approx(math.exp(log_e))
    assert found.p == pytest.approx(math.exp(-log_e))
    assert found.e_limit is not None
    assert found.e_value >= found.e_limit
    assert found.detail.startswith("30 failed requests, 10 expected from the devices' history")


def test_one_hardware_class_alone_may_fail() -> None:
    trials = compared(
        "crashes", 0, 0, orin=Amounts(6, 1, 100, 1000, 0.1, 1.0), pi=Amounts(0, 60, 900, 10_000, 6.0, 60.0)
    )
    found = check("crashes v control", trials=trials)
    assert found is not None
    assert (found.result, "on orin" in found.detail) == (Result.FAIL, True)


def test_without_a_control_a_comparison_says_so_and_passes() -> None:
    trials = Trials().after({"errors": {"orin": Amounts(50, 0, 100, 0, 1.0, 0.0)}}, {}, 0.1)
    found = check("errors v control", trials=trials)
    assert found is not None
    assert (found.result, found.value) == (Result.PASS, None)
    assert "to compare with" in found.detail


def test_more_harm_never_turns_a_fail_into_a_pass() -> None:
    results = [result("errors v control", trials=compared("errors", events, 190)) for events in range(60)]
    first = results.index(Result.FAIL)
    assert 10 < first < 30
    assert set(results[first:]) == {Result.FAIL}


def test_drift_needs_the_calibrated_alarm() -> None:
    assert result("drift PSI", drift=DriftSign(0.9, "f", "cam-1", drifted=False)) is Result.PASS
    assert result("drift PSI", drift=DriftSign(0.9, "f", "cam-1", drifted=True)) is Result.FAIL


# --- kept and replayed --------------------------------------------------------------------------------------


def rich() -> tuple[Rollout, Evidence]:
    started = replace(rollout(2, 1, wave=0), limits=Limits(webhook=Hook(channel="ops")))
    seen = evidence(2, 1, state="rolled-back", reason="E_GOLDEN_MISMATCH", told_at=T0)
    return started, replace(
        seen,
        candidate=Vitals(500, 3, 12.5, 1, 200, 190),
        control=Vitals(9000, 10, 12.0),
        drift=DriftSign(0.3, "input.brightness", "d00", drifted=True),
        trials=compared("errors", 12, 190),
        usual_failures=0.03,
        accuracy=0.96,
        hook=HookAnswer(0, "wait", "webhook: not yet", T0),
    )


def test_a_stored_verdict_reads_back_and_decides_the_same() -> None:
    found = verdicts.make(*rich(), at(60))
    body = verdicts.to_json(found)
    assert verdicts.from_json(body) == found
    assert verdicts.replayed(body) == found
    assert numbers.from_json(numbers.to_json(found.numbers)) == found.numbers
    assert found.checks == gate.judge(*rich(), at(60))
    assert len(found.checks) == 12


def test_other_numbers_are_another_verdict() -> None:
    body = verdicts.to_json(verdicts.make(*rich(), at(60)))
    body["numbers"]["candidate"]["failed"] = 500
    again = verdicts.replayed(body)
    assert next(it for it in again.checks if it.name == "errors").result is Result.FAIL


def test_a_verdict_is_kept_when_it_changes_and_now_and_then() -> None:
    started, seen = rich()
    first = verdicts.make(started, seen, at(0))
    assert verdicts.due(None, first)
    assert not verdicts.due(first, verdicts.make(started, seen, at(299)))
    assert verdicts.due(first, verdicts.make(started, seen, at(300)))
    changed = replace(seen, candidate=Vitals(500, 400))
    assert verdicts.due(first, verdicts.make(started, changed, at(10)))
    assert not verdicts.due(first, verdicts.make(started, changed, at(9)))
    passing = replace(first, result=Result.PASS)
    assert verdicts.due(passing, first)  # a first fail is never missed


async def judged(world: Any, api: httpx2.AsyncClient) -> str:
    for name in ("cam-1", "cam-2"):
        await world.device(name)
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    made = await api.post("/rollouts", json={"model": "digits", "version": "2.0.0", "waves": ["1", "100%"]})
    await world.driver.advance()
    await world.driver.advance()
    return str(made.json()["id"])


async def test_verdicts_are_read_page_by_page(world: Any, api: httpx2.AsyncClient) -> None:
    made = await judged(world, api)
    for _ in range(3):
        world.after(301)
        await world.driver.advance()
    first = (await api.get(f"/rollouts/{made}/verdicts?limit=3")).json()
    rest = (await api.get(f"/rollouts/{made}/verdicts?limit=3&cursor={first['next_cursor']}")).json()
    times = [it["at"] for it in (*first["items"], *rest["items"])]
    assert len(times) == 4
    assert times == sorted(times, reverse=True)
    newest = first["items"][0]
    assert newest["result"] == "wait"
    assert {"name", "value", "limit", "reference", "e_value", "p", "detail"} <= set(newest["checks"][0])
    assert newest["numbers"]["released"] == 1
    assert (await api.get("/rollouts/ro-none/verdicts")).json()["code"] == "E_ROLLOUT_UNKNOWN"
    assert (await api.get(f"/rollouts/{made}/verdicts?cursor=WyJ4Il0")).status_code in (400, 422)


async def test_only_the_newest_and_only_for_a_while(
    world: Any, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await judged(world, api)
    monkeypatch.setattr(gates, "MAX_VERDICTS", 5)
    async with world.database.write() as tx:
        for minute in range(9):
            await gates.save_verdict(tx, made, T0 + timedelta(minutes=minute), "pass", {"checks": []})
    async with world.database.write() as tx:
        kept = await gates.verdicts(tx, made, before=None, limit=100)
        assert [row.at for row in kept] == [T0 + timedelta(minutes=minute) for minute in (8, 7, 6, 5, 4)]
        await gates.prune(tx, verdicts_before=T0 + timedelta(minutes=7), ended_before=T0)
        assert len(await gates.verdicts(tx, made, before=None, limit=100)) == 2
