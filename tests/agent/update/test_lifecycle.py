"""The table of an update's phases, move by move."""

from dataclasses import replace
from itertools import product

import pytest

from agent.update import lifecycle
from agent.update.lifecycle import (
    INTERRUPTIBLE,
    MOVES,
    OWES,
    SWAPPED_IN,
    Event,
    State,
    Update,
    advance,
    draft,
    may_adopt,
    may_supersede,
)
from shared.messages import Phase

UPDATE = Update(assignment=7, model="digits", version="1.1.0", manifest="0" * 64, sealed_key="", rollout="ro-1")
NEWER = replace(UPDATE, assignment=8, version="1.2.0", manifest="1" * 64)


def at(state: State) -> Update:
    return replace(UPDATE, state=state)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_move_is_in_the_table_or_raises(state: State, event: Event) -> None:
    wanted = MOVES[state].get(event)
    if wanted is None:
        with pytest.raises(lifecycle.IllegalMoveError):
            advance(at(state), event, reason="E_X")
    else:
        assert advance(at(state), event, reason="E_X").state is wanted


def test_every_state_has_a_row_and_owes_an_effect_unless_it_is_final() -> None:
    assert set(MOVES) == set(State)
    assert {state for state in State if not MOVES[state]} == set(State) - set(OWES)
    assert {state for state in State if at(state).final} == {
        State.COMMITTED,
        State.REFUSED,
        State.FAILED,
        State.ROLLED_BACK,
        State.CANCELLED,
    }


def test_every_state_can_come_to_an_end() -> None:
    ends = {state for state in State if not MOVES[state]}
    while more := {state for state in State if state not in ends and set(MOVES[state].values()) & ends}:
        ends |= more
    assert ends == set(State)


def test_every_final_phase_of_the_wire_is_a_final_state() -> None:
    assert {state.value for state in State if not MOVES[state]} == {phase.value for phase in Phase if phase.final}


def test_once_it_answers_requests_an_update_ends_only_in_commit_or_after_its_slot_was_retired() -> None:
    for state in lifecycle.SWAPPED_IN:
        assert set(MOVES[state].values()) <= {State.PROVEN, State.COMMITTED} | lifecycle.LEAVING


def test_rejected_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        advance(at(State.VERIFIED), Event.REJECTED)


def test_a_reason_stays_until_the_end() -> None:
    failing = advance(at(State.STAGED), Event.REJECTED, reason="E_GOLDEN_MISMATCH", detail="y differs")
    failed = advance(failing, Event.RETIRED)
    found = draft(failed)
    assert found is not None
    assert (found.phase, found.reason, found.detail) == (Phase.FAILED, "E_GOLDEN_MISMATCH", "y differs")


@pytest.mark.parametrize("state", State)
def test_a_report_is_made_where_the_fleet_has_a_word_for_it(state: State) -> None:
    found = draft(at(state))
    assert (found is not None) == (state.value in {phase.value for phase in Phase})
    if found is not None:
        assert (found.assignment, found.model, found.rollout) == (7, "digits", "ro-1")


def test_a_newer_assignment_pushes_aside_what_does_not_answer_requests_yet() -> None:
    other, newer = replace(NEWER, model="other"), NEWER
    assert may_supersede(at(State.FETCHING), other)
    assert may_supersede(at(State.PROBATION), newer)
    assert not may_supersede(at(State.PROBATION), other)
    assert not may_supersede(at(State.CONDEMNED), newer)
    assert not may_supersede(at(State.COMMITTED), newer)


@pytest.mark.parametrize("state", sorted(INTERRUPTIBLE))
def test_a_newer_assignment_of_the_same_release_gives_new_terms_or_calls_off_what_does_not_serve(state: State) -> None:
    same = replace(NEWER, manifest=at(state).manifest)
    off = replace(same, called_off=True)
    serves = state in SWAPPED_IN
    assert (may_adopt(at(state), same), may_supersede(at(state), same)) == (True, False)
    assert (may_adopt(at(state), off), may_supersede(at(state), off)) == (serves, not serves)
    assert not may_adopt(replace(at(state), called_off=True), same)  # it ends first
    assert not may_adopt(at(state), NEWER)
