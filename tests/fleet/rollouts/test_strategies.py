"""Blue-green, all at once, batches, approval, the four effects of a stop, and what limits hold back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet.rollouts import engine, pacing
from fleet.rollouts.engine import Announce, Close, Recall, Switch
from fleet.rollouts.errors import OwnApprovalError, RolloutStateError
from fleet.rollouts.states import ALL_BACK, Effect, Ramp, SiteBudget, SiteLoad, State
from tests.fleet.rollouts.test_engine import ONLY_STOP, Run, at, evidence, recalled, rollout, told


def switched(step: engine.Step) -> list[str]:
    return [action.device for action in step.actions if isinstance(action, Switch)]


def blue_green(size: int, **changes: object) -> Run:
    started = rollout(size, strategy="blue-green", max_in_flight=size, **changes)
    return Run(started, evidence(size))


def test_blue_green_stages_everywhere_switches_once_and_validates() -> None:
    run = blue_green(3)
    assert run.step(0).actions == tuple(Announce(f"d0{number}", stage=True) for number in range(3))
    run.say("self-tested", "d00", "d01")
    assert run.step(1).actions == ()
    assert pacing.waits(run.rollout, run.evidence, at(1))["d00"] == "the switch of all: 2 of 3 have it staged"
    run.say("self-tested", "d02")
    assert switched(run.step(2)) == ["d00", "d01", "d02"]
    assert run.step(3).actions == ()
    run.say("committed", serving="2.0.0")
    run.step(4)
    assert run.rollout.state is State.RUNNING  # the validation period
    run.step(14)
    assert run.rollout.state is State.COMPLETED


def test_blue_green_goes_back_at_once_when_the_new_version_does_harm() -> None:
    run = blue_green(3)
    run.step(0)
    run.say("self-tested")
    run.step(1)
    run.say("committed", "d00", "d01", serving="2.0.0")
    run.say("rolled-back", "d02", reason="E_PROBATION_ERRORS")
    assert sorted(recalled(run.step(2))) == ["d00", "d01", "d02"]
    assert run.rollout.state is State.ROLLING_BACK


def test_blue_green_switches_with_the_share_that_was_asked_and_the_others_follow() -> None:
    run = blue_green(4, stage_ratio=0.5)
    run.step(0)
    run.say("self-tested", "d00", "d01")
    assert switched(run.step(1)) == ["d00", "d01"]
    run.say("self-tested", "d02")
    assert switched(run.step(2)) == ["d02"]
    assert told(run.step(3)) == []


def test_blue_green_never_switches_when_too_few_can_have_it_staged() -> None:
    run = blue_green(12)
    run.step(0)
    run.say("self-tested", *(f"d0{number}" for number in range(10)), "d010")
    run.say("refused", "d011", reason="E_DISK_SPACE")
    step = run.step(1)
    assert switched(step) == []
    assert run.rollout.reason == "only 11 of 12 devices can have it staged; asked were 100%"
    assert len(recalled(step)) == 12


def test_staged_devices_that_are_not_called_back_end_with_a_reason() -> None:
    run = blue_green(2)
    run.step(0)
    run.say("self-tested")
    step = run.do(engine.abort(run.rollout, run.evidence, at(1), reason="p", effects=ONLY_STOP), 1)
    assert all(isinstance(action, Close) for action in step.actions)
    assert run.rollout.state is State.ABORTED
    assert {member.reason for member in run.evidence.members} == {"E_ROLLOUT_STOPPED"}


def test_who_has_it_staged_waits_without_a_deadline_and_the_switch_has_its_own() -> None:
    run = blue_green(2, limits=replace(rollout().limits, criteria=()))
    run.step(0)
    run.say("self-tested", "d00")
    run.step(99)
    assert run.member("d00").state == "self-tested"
    run.say("self-tested", "d01")
    run.step(99.5)
    run.step(150)
    assert run.member("d00").state == "self-tested"
    run.step(200)
    assert run.member("d00").outcome_detail == "still self-tested 100 s after the switch"


def test_all_at_once_waits_for_another_person_and_then_knows_no_limit() -> None:
    started = rollout(
        9, strategy="all-at-once", state=State.AWAITING_APPROVAL, needs_approval=True, author="ana", max_in_flight=2
    )
    run = Run(started, evidence(9))
    assert run.step(0).actions == ()
    assert set(pacing.waits(run.rollout, run.evidence, at(0)).values()) == {"approval"}
    with pytest.raises(OwnApprovalError, match="ana started ro-1"):
        engine.approve(run.rollout, at(1), "ana")
    run.do(engine.approve(run.rollout, at(1), "ben"), 1)
    assert len(told(run.step(1))) == 9
    assert run.rollout.approved_by == ("ben",)
    with pytest.raises(RolloutStateError, match="cannot approve"):
        engine.approve(run.rollout, at(2), "ben")


def test_manual_waves_stop_at_each_gate_until_somebody_approves() -> None:
    run = Run(rollout(1, 1, 1, manual=True, bake_seconds=0.0), evidence(1, 1, 1))
    assert told(run.step(0)) == ["d00"]
    run.say("committed", "d00")
    assert run.step(1).actions == ()
    assert (run.rollout.state, run.rollout.reason) == (State.AWAITING_APPROVAL, "W1 waits for approval")
    run.do(engine.approve(run.rollout, at(2), "ana"), 2)
    assert told(run.step(3)) == ["d10"]
    run.say("committed", "d10")
    run.step(4)
    assert run.rollout.state is State.AWAITING_APPROVAL
    run.say("rolled-back", "d10", reason="E_X")  # the gates hold while it waits
    run.step(5)
    assert run.rollout.state is State.ROLLING_BACK


def test_a_batch_of_which_too_few_arrive_ends_a_rolling_rollout() -> None:
    limits = replace(rollout().limits, criteria=())
    run = Run(rollout(4, 2, 2, strategy="rolling", bake_seconds=0.0, limits=limits), evidence(4, 2, 2))
    run.step(0)
    run.say("committed", *(f"d0{number}" for number in range(4)))
    run.step(1)
    run.say("failed", "d10", "d11", reason="E_LOAD")
    run.step(2)
    assert run.rollout.state is State.ROLLING_BACK
    assert run.rollout.reason == "W1 failed: 0 of 2 devices have the release"


@pytest.mark.parametrize(
    ("effects", "back"),
    [
        (ONLY_STOP, []),
        ((Effect.CANCEL_QUEUED,), ["d00"]),
        ((Effect.INTERRUPT,), ["d01"]),
        ((Effect.ROLL_BACK,), ["d02"]),
        (ALL_BACK, ["d00", "d01", "d02"]),
    ],
)
def test_each_effect_of_a_stop_reaches_whom_it_names(effects: tuple[Effect, ...], back: list[str]) -> None:
    run = Run(rollout(3, 1), evidence(3, 1))
    run.step(0)
    run.say("fetching", "d01")
    run.say("committed", "d02", serving="2.0.0")
    step = run.do(engine.abort(run.rollout, run.evidence, at(1), reason="p", effects=effects), 1)
    assert recalled(step) == back
    assert run.member("d10").reason == "E_ROLLOUT_STOPPED"


def test_who_finishes_after_the_stop_is_brought_back_then() -> None:
    run = Run(rollout(2), evidence(2))
    run.step(0)
    run.say("fetching")
    effects = (Effect.ROLL_BACK,)
    assert recalled(run.do(engine.abort(run.rollout, run.evidence, at(1), reason="p", effects=effects), 1)) == []
    run.say("committed", "d00", serving="2.0.0")
    assert recalled(run.step(2)) == ["d00"]


def test_a_whole_fleet_goes_back_at_the_rate_crashing_devices_and_the_canary_first() -> None:
    run = Run(rollout(2, 4, bake_seconds=0.0, max_in_flight=9, recalls_per_minute=2.0), evidence(2, 4))
    run.step(0)
    run.say("committed", "d00", "d01", serving="2.0.0")
    run.step(1)
    run.say("committed", serving="2.0.0")
    run.step(2)
    run.evidence = replace(run.evidence, crashing=frozenset({"d13"}))
    step = run.do(engine.abort(run.rollout, run.evidence, at(3), reason="p", effects=ALL_BACK), 3)
    assert recalled(step) == ["d13", "d00"]
    run.say("committed", *recalled(step), serving="1.0.0")
    assert recalled(run.step(30)) == []
    assert run.rollout.state is State.ROLLING_BACK
    assert recalled(run.step(64)) == ["d01", "d10"]


def test_places_are_shared_with_other_rollouts_and_who_waits_says_so() -> None:
    run = Run(rollout(4), replace(evidence(4), elsewhere=3))
    assert told(run.step(0)) == ["d00", "d01"]
    waits = pacing.waits(run.rollout, run.evidence, at(0))
    assert waits == dict.fromkeys(("d02", "d03"), "a place: 5 of 5 devices are at work")


def test_the_rate_doubles_with_what_succeeded_not_with_what_was_told() -> None:
    run = Run(rollout(20, max_in_flight=99, ramp=Ramp(2, 2, 3), timeout_seconds=9999.0), evidence(20))
    assert len(told(run.step(0))) == 2
    assert len(told(run.step(30))) == 0
    assert pacing.waits(run.rollout, run.evidence, at(30))["d02"] == "the rate: 2 a minute now"
    assert len(told(run.step(60))) == 2
    assert len(told(run.step(120))) == 2
    run.say("committed", "d00", "d01", "d010")
    assert len(told(run.step(180))) == 4


def test_a_rate_below_one_a_minute_is_kept_over_minutes() -> None:
    run = Run(rollout(3, ramp=Ramp(0.5, 1, 1), timeout_seconds=9999.0), evidence(3))
    assert [len(told(run.step(seconds))) for seconds in (0, 60, 120)] == [1, 0, 1]


def test_the_line_of_a_site_is_shared_and_its_hour_counted() -> None:
    budget = SiteBudget(in_flight_bytes=25, hourly_bytes=35)
    sited = evidence(6, seen_at=None)
    sited = replace(sited, members=tuple(replace(it, site="gate") for it in sited.members))
    sited = replace(sited, sites={"gate": SiteLoad(in_flight_bytes=10, hourly_bytes=10), "hall": SiteLoad(99, 99)})
    run = Run(rollout(6, max_in_flight=9, bytes_each=10, site_budget=budget, timeout_seconds=9999.0), sited)
    assert told(run.step(0)) == ["d00"]
    waits = pacing.waits(run.rollout, run.evidence, at(0))
    assert waits["d01"] == "site budget: 20 of 25 bytes in flight (site gate)"
    run.say("staged", "d00")
    assert told(run.step(1)) == ["d01"]
    run.say("staged", "d01")
    assert pacing.waits(run.rollout, run.evidence, at(2))["d02"] == "site budget: 30 of 35 bytes this hour (site gate)"
    run.say("committed", "d00", "d01")
    run.evidence = replace(run.evidence, sites={})
    assert len(told(run.step(3601))) == 2


def test_one_device_may_always_use_an_idle_line() -> None:
    run = Run(
        rollout(2, bytes_each=100, site_budget=SiteBudget(10, 10), timeout_seconds=99999.0), evidence(2, seen_at=None)
    )
    assert told(run.step(0)) == ["d00"]
    assert told(run.step(3601)) == []
    run.say("committed", "d00")
    assert told(run.step(3602)) == ["d01"]


def test_a_gate_that_fails_proves_the_release_bad_on_the_classes_at_fault() -> None:
    run = Run(rollout(4, max_in_flight=9), evidence(4))
    kinds = {"d00": "nano", "d01": "nano", "d02": "orin", "d03": "orin"}
    run.change(lambda member: replace(member, hardware=kinds[member.device]))
    run.step(0)
    run.say("committed", "d00", "d01", "d02")
    run.say("rolled-back", "d03", reason="E_PROBATION_ACCURACY", detail="0.31")
    (proof,) = run.step(1).condemned
    assert (proof.hardware, proof.reason, proof.failed, proof.ended) == ("orin", "E_PROBATION_ACCURACY", 1, 2)


def test_a_refusal_for_want_of_room_proves_nothing_of_the_release() -> None:
    run = Run(rollout(1), evidence(1, hardware="nano"))
    run.step(0)
    run.say("refused", "d00", reason="E_DISK_SPACE")
    step = run.step(1)
    assert run.rollout.state is not State.RUNNING
    assert step.condemned == ()


def test_calling_back_is_told_once_to_each() -> None:
    run = Run(rollout(3), evidence(3))
    run.step(0)
    run.say("committed", serving="2.0.0")
    first = run.do(engine.abort(run.rollout, run.evidence, at(1), reason="p", effects=ALL_BACK), 1)
    again = engine.step(run.rollout, run.evidence, at(1) + timedelta(seconds=1))
    assert [isinstance(action, Recall) for action in first.actions] == [True] * 3
    assert again.actions == ()
