from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.rollouts import engine, saved
from fleet.rollouts.engine import Announce, CallOff, Close, Recall
from fleet.rollouts.errors import RolloutStateError
from fleet.rollouts.progress import shown
from fleet.rollouts.states import (
    ALL_BACK,
    ENDED,
    MOVES,
    QUEUED,
    TERMINAL,
    Criterion,
    DriftSign,
    Effect,
    Event,
    Evidence,
    Limits,
    Member,
    Rollout,
    State,
    Vitals,
    Wave,
    advance,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ONLY_STOP = (Effect.STOP_NEW,)


def rollout(*sizes: int, **changes: object) -> Rollout:
    waves = tuple(Wave(f"W{index}", "", size) for index, size in enumerate(sizes or (1, 2)))
    base = Rollout(id="ro-1", model="digits", version="2.0.0", strategy="canary", waves=waves, since=T0)
    return replace(base, **{"bake_seconds": 10.0, "timeout_seconds": 100.0, **changes})


def evidence(*sizes: int, **changes: object) -> Evidence:
    members = [
        Member(device=f"d{wave}{number}", wave=wave, since=T0, previous="1.0.0", serving="1.0.0", seen_at=T0)
        for wave, size in enumerate(sizes or (1, 2))
        for number in range(size)
    ]
    return Evidence(tuple(replace(member, **changes) for member in members))


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def told(step: engine.Step) -> list[str]:
    return [action.device for action in step.actions if isinstance(action, Announce)]


def recalled(step: engine.Step) -> list[str]:
    return [action.device for action in step.actions if isinstance(action, Recall)]


class Run:
    """A rollout whose devices do what the test says."""

    def __init__(self, started: Rollout, known: Evidence) -> None:
        self.rollout, self.evidence = started, known

    def step(self, seconds: float) -> engine.Step:
        return self.do(engine.step(self.rollout, self.evidence, at(seconds)), seconds)

    def do(self, step: engine.Step, seconds: float) -> engine.Step:
        self.rollout = step.rollout
        self.evidence = engine.apply(self.evidence, step.actions, at(seconds))
        self.change(lambda member: replace(member, owed=False))
        return step

    def change(self, function, *devices: str) -> None:
        members = tuple(
            function(member) if not devices or member.device in devices else member for member in self.evidence.members
        )
        self.evidence = replace(self.evidence, members=members)

    def say(self, state: str, *devices: str, **more: object) -> None:
        self.change(lambda member: replace(member, state=state, **more), *devices)

    def member(self, device: str) -> Member:
        return next(member for member in self.evidence.members if member.device == device)


def test_the_canary_is_told_first_and_alone() -> None:
    run = Run(rollout(), evidence())
    assert told(run.step(0)) == ["d00"]
    assert run.rollout.wave == 0
    assert run.step(1) == engine.Step(run.rollout)


def test_the_next_wave_comes_after_evidence_and_bake() -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.say("probation", "d00")
    assert run.step(5).actions == ()
    run.say("committed", "d00")
    assert run.step(6).notes
    assert run.step(15.9).actions == ()
    assert told(run.step(16)) == ["d10", "d11"]
    run.say("committed", "d10", "d11")
    run.step(20)
    assert run.rollout.state is State.RUNNING
    run.step(30)
    assert run.rollout.state is State.COMPLETED


def test_promote_waives_the_bake_of_this_wave_only() -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.say("committed", "d00")
    run.step(1)
    run.do(engine.promote(run.rollout, "ana"), 1)
    assert told(run.step(1)) == ["d10", "d11"]
    run.say("committed", "d10", "d11")
    run.step(2)
    assert run.rollout.state is State.RUNNING


def test_promotion_does_not_open_a_gate() -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.do(engine.promote(run.rollout, "ana"), 0)
    run.say("refused", "d00", reason="E_HARDWARE")
    run.step(1)
    assert run.rollout.state is State.ROLLED_BACK


def test_a_rolling_rollout_ends_with_its_last_batch() -> None:
    run = Run(rollout(1, 1, strategy="rolling"), evidence(1, 1))
    run.step(0)
    run.say("committed", "d00")
    run.step(1)
    assert told(run.step(11)) == ["d10"]
    run.say("committed", "d10")
    run.step(12)
    assert run.rollout.state is State.COMPLETED


def test_only_so_many_are_at_work_at_once_and_an_offline_one_takes_no_place() -> None:
    run = Run(rollout(6, max_in_flight=2), evidence(6))
    run.change(lambda member: replace(member, online=False), "d00")
    assert told(run.step(0)) == ["d00", "d01", "d02"]
    assert told(run.step(1)) == []
    run.say("committed", "d01")
    assert told(run.step(2)) == ["d03"]


def test_pause_stops_new_announcements_and_nothing_else() -> None:
    run = Run(rollout(1, 2), evidence(1, 2))
    run.step(0)
    run.do(engine.pause(run.rollout, at(1), "ana"), 1)
    run.say("committed", "d00")
    assert run.step(50) == engine.Step(run.rollout)
    run.do(engine.resume(run.rollout, at(51), "ana"), 51)
    run.step(51)
    assert told(run.step(61)) == ["d10", "d11"]
    run.do(engine.pause(run.rollout, at(62), "ana"), 62)
    run.say("rolled-back", "d10", reason="E_PROBATION_ERRORS")
    assert recalled(run.step(63)) == ["d00", "d10", "d11"]


def test_a_device_that_took_it_back_by_itself_stops_the_rollout() -> None:
    run = Run(rollout(1, 5), evidence(1, 5))
    run.step(0)
    run.say("rolled-back", "d00", reason="E_PROBATION_ACCURACY", detail="accuracy 0.31 against 0.97")
    step = run.step(1)
    assert recalled(step) == ["d00"]
    assert run.rollout.state is State.ROLLED_BACK  # it serves the version before already
    assert "E_PROBATION_ACCURACY: accuracy 0.31 against 0.97" in str(run.rollout.reason)
    untouched = [member for member in run.evidence.members if member.wave == 1]
    assert {(member.state, member.reason) for member in untouched} == {("cancelled", "E_ROLLOUT_STOPPED")}
    assert not any(member.touched for member in untouched)


def test_a_silent_canary_fails_at_the_deadline_and_not_before() -> None:
    run = Run(rollout(1, 2), evidence(1, 2, online=False))
    run.step(0)
    assert run.step(99.9).actions == ()
    step = run.step(100)
    closed = next(action for action in step.actions if isinstance(action, Close))
    assert (closed.device, closed.reason) == ("d00", "E_SILENT")
    assert recalled(step) == ["d00"]
    assert run.rollout.state is State.ROLLING_BACK
    run.step(200)
    assert run.rollout.state is State.FAILED
    assert "did not confirm the way back: d00" in str(run.rollout.reason)


def test_one_that_hangs_on_the_way_is_told_apart_from_a_silent_one() -> None:
    run = Run(rollout(1), evidence(1))
    run.step(0)
    run.say("fetching", "d00")
    assert [a.reason for a in run.step(100).actions if isinstance(a, Close)] == ["E_TIMEOUT"]


def test_rolled_back_means_every_touched_device_said_so() -> None:
    run = Run(rollout(1, 2), evidence(1, 2))
    run.step(0)
    run.say("committed", "d00", serving="2.0.0")
    run.step(1)
    run.step(11)
    run.say("committed", "d10", serving="2.0.0")
    run.say("rolled-back", "d11", reason="E_PROBATION_CRASH")
    assert recalled(run.step(12)) == ["d00", "d10", "d11"]
    run.say("committed", "d00", serving="1.0.0")
    assert run.step(13).rollout.state is State.ROLLING_BACK
    run.say("committed", "d10", serving="1.0.0")
    assert run.step(14).rollout.state is State.ROLLED_BACK


def test_a_late_report_of_the_way_forward_is_no_proof_of_the_way_back() -> None:
    run = Run(rollout(1), evidence(1))
    run.step(0)
    step = engine.abort(run.rollout, run.evidence, at(1), reason="ana", effects=ALL_BACK)
    known = engine.apply(run.evidence, step.actions, at(1))
    members = tuple(replace(member, state="committed", serving="2.0.0") for member in known.members)
    assert engine.step(step.rollout, replace(known, members=members), at(2)).rollout.state is State.ROLLING_BACK


def test_abort_without_rollback_lets_devices_finish() -> None:
    run = Run(rollout(1, 1, auto_rollback=False), evidence(1, 1))
    run.step(0)
    run.say("fetching", "d00")
    step = run.do(engine.abort(run.rollout, run.evidence, at(1), reason="dusk", effects=ONLY_STOP), 1)
    assert recalled(step) == []
    assert run.rollout.state is State.ABORTING
    run.say("committed", "d00")
    run.step(2)
    assert (run.rollout.state, run.rollout.reason) == (State.ABORTED, "dusk")


def test_a_completed_rollout_can_be_taken_back() -> None:
    run = Run(rollout(1, bake_seconds=0.0), evidence(1))
    run.step(0)
    run.say("committed", "d00", serving="2.0.0")
    run.step(1)
    assert run.rollout.state is State.COMPLETED
    step = run.do(engine.abort(run.rollout, run.evidence, at(2), reason="ana", effects=ALL_BACK), 2)
    assert recalled(step) == ["d00"]
    run.say("committed", "d00", serving="1.0.0")
    run.step(3)
    assert run.rollout.state is State.ROLLED_BACK
    with pytest.raises(RolloutStateError):
        engine.abort(run.rollout, run.evidence, at(4), reason="again", effects=ALL_BACK)


def test_a_first_version_has_nothing_to_go_back_to() -> None:
    run = Run(rollout(1), evidence(1, previous=None, serving=None))
    run.step(0)
    run.say("failed", "d00", reason="E_LOAD")
    step = run.step(1)
    assert recalled(step) == []
    assert run.rollout.state is State.ROLLED_BACK


@pytest.mark.parametrize("state", ["queued", "announced", "fetching", "self-tested"])
def test_a_first_version_that_does_not_serve_yet_is_called_off(state: str) -> None:
    run = Run(rollout(2), evidence(2, previous=None, serving=None))
    run.step(0)
    run.say(state, "d01")
    run.say("failed", "d00", reason="E_LOAD")
    step = run.step(1)
    assert [action.device for action in step.actions if isinstance(action, CallOff)] == ["d01"]
    assert "1 device gives up what it had begun, with nothing before it" in step.notes[1].text
    assert run.rollout.state is State.ROLLING_BACK
    run.say("cancelled", "d01", reason="E_CANCELLED")
    run.step(2)
    assert run.rollout.state is State.ROLLED_BACK
    assert shown(run.member("d01")) == ("rolled-back", "E_ROLLOUT_STOPPED", "called off before it served")


@pytest.mark.parametrize(("state", "serving"), [("committed", "2.0.0"), ("cancelled", "2.0.0")])
def test_a_call_off_that_came_too_late_is_told(state: str, serving: str) -> None:
    run = Run(rollout(2), evidence(2, previous=None, serving=None))
    run.step(0)
    run.say("failed", "d00", reason="E_LOAD")
    run.step(1)
    run.say(state, "d01", serving=serving, reason="E_CANCELLED" if state == "cancelled" else None)
    run.step(2)
    assert run.rollout.state is State.FAILED
    assert "1 of 1 devices did not confirm the way back: d01" in str(run.rollout.reason)


def test_a_revoked_device_is_closed_and_stops_nobody() -> None:
    run = Run(rollout(2, limits=Limits(criteria=(Criterion("any", 0.5),), min_success_ratio=0.5)), evidence(2))
    run.step(0)
    run.change(lambda member: replace(member, active=False), "d00")
    run.say("committed", "d01")
    run.step(1)
    assert (run.member("d00").state, run.member("d00").reason) == ("cancelled", "E_DEVICE_REVOKED")
    assert run.rollout.state is State.RUNNING


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"candidate": Vitals(requests=100, failed=20)}, "20.00% of 100 requests failed"),
        ({"candidate": Vitals(requests=100, p95_ms=1200.0)}, "p95 1200.0 ms"),
        ({"candidate": Vitals(requests=100, restarts=4)}, "4 restarts"),
        ({"drift": DriftSign(0.8, "output.confidence", "d00", True)}, "output.confidence on d00: PSI 0.80"),
    ],
)
def test_each_gate_stops_the_rollout_with_its_own_words(known: dict[str, object], words: str) -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.say("committed", "d00")
    run.evidence = replace(run.evidence, **known)
    run.step(1)
    assert run.rollout.state is State.ROLLING_BACK
    assert words in str(run.rollout.reason)


@pytest.mark.parametrize(
    "known",
    [
        {"candidate": Vitals(requests=100, failed=6)},  # beyond the limit, but not for certain
        {"candidate": Vitals(requests=49, failed=49)},  # too few to judge
        {"drift": DriftSign(0.8, "input.brightness", "d00", False)},  # large, and may be chance
    ],
)
def test_gates_do_not_stop_a_rollout_without_need(known: dict[str, object]) -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.say("committed", "d00")
    run.evidence = replace(run.evidence, **known)
    run.step(1)
    assert run.rollout.state is State.RUNNING


def test_devices_that_took_it_and_fell_silent_stop_the_rollout() -> None:
    run = Run(rollout(), evidence())
    run.step(0)
    run.say("committed", "d00", seen_at=at(1))
    run.step(2)
    run.do(engine.pause(run.rollout, at(3), "ana"), 3)
    run.step(302)
    assert "1 of 1 devices with the release are silent" in str(run.rollout.reason)


def test_a_wave_may_be_held_until_there_is_evidence() -> None:
    run = Run(rollout(1, 1, limits=Limits(require_evidence=True)), evidence(1, 1))
    run.step(0)
    run.say("committed", "d00", seen_at=at(0))
    run.step(1)
    assert run.step(20).actions == ()
    run.evidence = replace(run.evidence, candidate=Vitals(500, 0, 12.0), drift=DriftSign(0, "f", "d00", False))
    assert told(run.step(21)) == ["d10"]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_move_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if event in MOVES[state]:
        assert advance(state, event) is MOVES[state][event]
    else:
        with pytest.raises(RolloutStateError):
            advance(state, event)


# --- properties ---------------------------------------------------------------------------------------------

PHASES = ["announced", "fetching", "probation", "committed", "refused", "failed", "rolled-back", "cancelled"]
NEWS = st.lists(
    st.tuples(
        st.integers(0, 7),  # device
        st.sampled_from([*PHASES, "committed", "committed", "offline", "online", "revoke", "nothing"]),
        st.sampled_from(["", "", "", "", "pause", "resume", "promote", "abort", "keep"]),
        st.floats(0, 30),  # seconds that pass
        st.booleans(),  # step twice
    ),
    max_size=60,
)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def play(sizes: list[int], news: list[tuple[int, str, str, float, bool]], **changes: object) -> list[engine.Step]:
    """Drive a rollout through `news`, checking what must hold after every step."""
    run = Run(rollout(*sizes, **changes), evidence(*sizes))
    steps: list[engine.Step] = []
    recalls: list[str] = []
    tells: list[str] = []
    seconds = 0.0

    def did(step: engine.Step) -> None:
        before = run.rollout
        assert not (before.state in TERMINAL and step.actions) or before.state in (State.COMPLETED, State.ABORTED)
        run.do(step, seconds)
        steps.append(step)
        recalls.extend(recalled(step))
        if step.rollout != before:
            assert saved.from_json(saved.to_json(step.rollout)) == step.rollout
        for member in run.evidence.members:
            assert not member.touched or member.wave <= run.rollout.wave
        assert before.state is State.RUNNING or not told(step)
        tells.extend(told(step))
        assert len(tells) == len(set(tells))
        assert len(recalls) == len(set(recalls))

    for device, phase, verb, passed, twice in news:
        member = run.evidence.members[device % len(run.evidence.members)]
        if member.touched and phase in PHASES and member.state not in ENDED:
            going_back = member.recalled_at is not None
            serving = ("1.0.0" if going_back else "2.0.0") if phase == "committed" else member.serving
            run.say(phase, member.device, reason="E_X", serving=serving, seen_at=at(seconds))
        if phase in ("offline", "online"):
            run.change(lambda it, on=phase == "online": replace(it, online=on), member.device)
        if phase == "revoke":
            run.change(lambda it: replace(it, active=False), member.device)
        seconds += passed
        try:
            match verb:
                case "pause":
                    did(engine.pause(run.rollout, at(seconds), "p"))
                case "resume":
                    did(engine.resume(run.rollout, at(seconds), "p"))
                case "promote":
                    did(engine.promote(run.rollout, "p"))
                case "abort" | "keep":
                    did(
                        engine.abort(
                            run.rollout,
                            run.evidence,
                            at(seconds),
                            reason="p",
                            effects=ALL_BACK if verb == "abort" else ONLY_STOP,
                        )
                    )
        except RolloutStateError:
            pass
        for _ in range(2 if twice else 1):
            did(engine.step(run.rollout, run.evidence, at(seconds)))

    if run.rollout.state is State.PAUSED:
        did(engine.resume(run.rollout, at(seconds), "p"))
    for _ in range(2 * len(run.evidence.members) + 15):  # silence from here on: everything ends by its deadline
        seconds += 101
        did(engine.step(run.rollout, run.evidence, at(seconds)))
    assert run.rollout.state in TERMINAL
    for member in run.evidence.members:
        state, reason, _ = shown(member)
        assert state in ENDED, member
        assert state == "committed" or reason, member
    if run.rollout.state in (State.ROLLED_BACK, State.FAILED):
        assert sorted(recalls) == sorted(m.device for m in run.evidence.members if m.touched)
    ended = run.rollout
    did(engine.step(run.rollout, run.evidence, at(seconds + 1000)))
    assert run.rollout == ended
    return steps


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIZES, NEWS, st.booleans(), st.integers(1, 5))
def test_whatever_devices_and_people_do_the_promises_hold(
    sizes: list[int], news: list[tuple[int, str, str, float, bool]], back: bool, at_once: int
) -> None:
    first = play(sizes, news, auto_rollback=back, max_in_flight=at_once)
    assert play(sizes, news, auto_rollback=back, max_in_flight=at_once) == first


def test_queued_is_not_an_end() -> None:
    assert QUEUED not in ENDED
