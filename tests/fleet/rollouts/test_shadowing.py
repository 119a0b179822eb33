"""Rollouts whose devices compare the release with what serves before they swap."""

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from fleet.rollouts import engine, gate, saved, shadowing
from fleet.rollouts.gate import Result
from fleet.rollouts.states import Evidence, Limits, Member, Rollout
from shared.messages import ShadowFigures
from shared.shadow import Terms
from tests.fleet.rollouts.test_driver import canary_of, custom, started
from tests.fleet.rollouts.test_engine import T0, Run, at, evidence, rollout, told

SHADOW = Terms(min_samples=50, min_agreement=0.9)


def figures(samples: int, agreed: int) -> ShadowFigures:
    return ShadowFigures(requests=samples, samples=samples, agreed=agreed)


def compared(*found: tuple[int, int]) -> tuple[Member, ...]:
    return tuple(Member(f"d{number}", 0, T0, shadow=figures(*each)) for number, each in enumerate(found))


def result_of(wanted: Rollout, members: tuple[Member, ...]) -> gate.Check | None:
    checks = gate.judge(replace(wanted, wave=0), Evidence(members), T0)
    return next((check for check in checks if check.name == "shadow agreement"), None)


def requiring(share: float, **changes: object) -> Rollout:
    return rollout(shadow=SHADOW, limits=Limits(min_shadow_agreement=share), **changes)


def test_a_rollout_without_a_shadow_has_no_such_gate() -> None:
    assert result_of(rollout(), compared()) is None


def test_agreement_of_all_devices_is_judged_together() -> None:
    found = result_of(rollout(shadow=SHADOW), compared((60, 60), (40, 35)))
    assert found is not None
    assert (found.result, found.value, found.limit, found.holds) == (Result.PASS, 0.95, 0.9, False)
    assert "100 compared, 95.00 % agree" in found.detail


def test_before_the_first_comparison_it_waits() -> None:
    found = result_of(rollout(shadow=SHADOW), compared((0, 0)))
    assert found is not None
    assert (found.result, found.value) == (Result.WAIT, None)


def test_what_is_required_must_be_proven_and_what_is_refuted_fails() -> None:
    for members, wanted in ((compared((50, 48)), Result.WAIT), (compared((500, 480)), Result.PASS)):
        found = result_of(requiring(0.93), members)
        assert found is not None
        assert (found.result, found.holds) == (wanted, True)
    found = result_of(requiring(0.93), compared((500, 440)))
    assert found is not None
    assert found.result is Result.FAIL
    assert "agrees too little" in found.detail


def test_the_next_wave_waits_for_the_proof_and_a_person_may_waive_it() -> None:
    def ended(run: Run, samples: int) -> None:
        run.say("committed", "d00", serving="2.0.0", shadow=figures(samples, samples))

    run = Run(requiring(0.95), evidence())
    run.step(0)
    ended(run, 20)
    run.step(1)
    assert told(run.step(100)) == []
    ended(run, 200)
    assert told(run.step(101)) == ["d10", "d11"]
    run = Run(requiring(0.95), evidence())
    run.step(0)
    ended(run, 20)
    run.step(1)
    run.do(engine.promote(run.rollout, "ana", run.evidence.members), 2)
    assert told(run.step(3)) == ["d10", "d11"]


def test_too_little_agreement_stops_the_rollout() -> None:
    run = Run(requiring(0.95), evidence())
    run.step(0)
    run.say("committed", "d00", shadow=figures(500, 400))
    run.step(1)
    assert run.rollout.reason is not None
    assert "agrees too little" in run.rollout.reason


def test_promotion_ends_the_shadow_that_devices_are_in_and_leaves_the_bake_alone() -> None:
    run = Run(rollout(shadow=SHADOW), evidence())
    run.step(0)
    run.say("shadowing", "d00", shadow=figures(10, 10))
    step = run.do(engine.promote(run.rollout, "ana", run.evidence.members), 5)
    assert told(step) == ["d00"]
    assert (run.rollout.shadow, run.rollout.promoted) == (None, False)
    assert run.member("d00").told_at == at(5)
    assert not shadowing.looks_on(replace(run.member("d00"), recalled_at=T0))


def test_a_rollout_with_a_shadow_comes_back_from_the_database_as_it_was() -> None:
    wanted = requiring(0.95)
    assert saved.from_json(saved.to_json(wanted)) == wanted


async def test_devices_are_told_the_terms_and_what_they_report_is_shown(world: Any, api: httpx2.AsyncClient) -> None:
    body = {"shadow": {"share": 0.25, "min_agreement": 0.9, "seconds": 60}, "gate": {"min_shadow_agreement": 0.8}}
    made = await started(world, api, **body)
    canary = await canary_of(world, made)
    _, assigned = await world.assigned(canary)
    assert Terms.model_validate_json(custom(assigned)["shadow"]) == Terms(share=0.25, min_agreement=0.9, seconds=60)
    await world.report(canary, made, "shadowing", shadow=figures(100, 99))
    view = await world.view(made)
    shown = next(one for one in view.deployments if one.device == canary)
    assert (shown.state, shown.shadow) == ("shadowing", "100 compared, 99.00 % agree")
    checked = next(one for one in view.gates if one.name == "shadow agreement")
    assert (checked.result, checked.value_text, checked.rule) == ("pass", "99 %", "≥ 80 %")
    assert (await api.post(f"/rollouts/{made}/promote")).status_code == 200
    await world.driver.advance()
    version, assigned = await world.assigned(canary)
    assert version == 2
    assert "shadow" not in custom(assigned)
    await world.report(canary, made, "committed", version="2.0.0")
    view = await world.view(made)
    assert next(one for one in view.deployments if one.device == canary).shadow == "100 compared, 99.00 % agree"


async def test_a_device_on_its_way_back_compares_nothing(world: Any, api: httpx2.AsyncClient) -> None:
    made = await started(world, api, shadow={"stay": True})
    canary = await canary_of(world, made)
    await world.report(canary, made, "shadowing", shadow=figures(100, 99))
    assert (await api.post(f"/rollouts/{made}/abort", json={"rollback": True})).status_code == 200
    await world.driver.advance()
    _, assigned = await world.assigned(canary)
    assert custom(assigned)["version"] == "1.0.0"
    assert "shadow" not in custom(assigned)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"shadow": {"share": 0}}, "share"),
        ({"shadow": {"sahre": 0.1}}, "sahre"),
        ({"shadow": {"when_few": "maybe"}}, "when_few"),
        ({"gate": {"min_shadow_agreement": 0.9}}, "min_shadow_agreement"),
    ],
)
async def test_terms_that_cannot_be_are_refused(
    world: Any, api: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    await world.device("cam-1")
    await world.release("2.0.0")
    answer = await api.post("/rollouts", json={"model": "digits", "version": "2.0.0", **body})
    assert answer.status_code == 422
    assert field in answer.text


async def test_the_plan_shows_the_shadow_and_leaves_time_for_it(world: Any, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1")
    await world.release("2.0.0")
    body = {"model": "digits", "version": "2.0.0", "shadow": {"seconds": 500}}
    planned = (await api.post("/rollouts", json=body, params={"dry_run": True})).json()
    assert planned["shadow"]["seconds"] == 500
    assert planned["timeout_seconds"] == world.settings.deployment.deployment_timeout_minutes * 60 + 500
