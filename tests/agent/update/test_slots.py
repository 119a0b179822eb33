"""What slots may hold, and which one answers."""

from datetime import UTC, datetime
from itertools import product

import pytest

from agent.update import slots
from agent.update.lifecycle import IllegalMoveError
from agent.update.slots import MOVES, Event, Record, Slot, State


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_move_is_in_the_table_or_raises(state: State, event: Event) -> None:
    wanted = MOVES[state].get(event)
    if wanted is None:
        with pytest.raises(IllegalMoveError):
            slots.advance(state, event)
    else:
        assert slots.advance(state, event) is wanted


def on_trial(record: Record, version: str, counter: int = 1) -> Record:
    name = record.idle
    staged = slots.staged(record, name, version=version, manifest=version * 8, counter=counter)
    return slots.trial_begun(slots.tested(staged, name, slots.Measured()), name, tries=3)


def good(version: str, minimum_counter: int = 0) -> Record:
    return slots.committed(on_trial(Record("digits"), version), minimum_counter=minimum_counter)


def test_the_first_release_goes_to_slot_a_and_answers_on_trial() -> None:
    record = on_trial(Record("digits"), "1.0.0")
    assert (record.active, record.trial, record.last_good, record.tries_left) == ("a", "a", None, 2)
    assert record.a.state is State.PROBATION


def test_a_commit_makes_it_the_last_good_and_raises_the_floor() -> None:
    record = good("1.0.0", minimum_counter=4)
    assert (record.active, record.trial, record.last_good, record.minimum_counter) == ("a", None, "a", 4)
    assert record.a.state is State.GOOD
    assert slots.committed(record, minimum_counter=9) == record


def test_the_floor_never_sinks() -> None:
    record = slots.committed(on_trial(good("1.0.0", minimum_counter=4), "1.1.0"), minimum_counter=1)
    assert record.minimum_counter == 4


def test_a_retired_trial_leaves_the_last_good_one_active() -> None:
    record = slots.retired(on_trial(good("1.0.0"), "1.1.0"), "b")
    assert (record.active, record.trial, record.b) == ("a", None, Slot())
    assert slots.retired(record, "b") == record


def test_the_last_good_slot_is_never_retired() -> None:
    with pytest.raises(IllegalMoveError):
        slots.retired(good("1.0.0"), "a")


def test_tries_run_out() -> None:
    record = on_trial(good("1.0.0"), "1.1.0")
    record = slots.trial_started(slots.trial_started(record))
    assert record.tries_left == 0
    with pytest.raises(IllegalMoveError):
        slots.trial_started(record)


def test_a_start_without_a_trial_is_misuse() -> None:
    with pytest.raises(IllegalMoveError):
        slots.trial_started(good("1.0.0"))


def test_staging_and_testing_again_change_nothing() -> None:
    record = slots.staged(good("1.0.0"), "b", version="1.1.0", manifest="m", counter=2)
    assert slots.staged(record, "b", version="1.1.0", manifest="m", counter=2) == record
    tested = slots.tested(record, "b", slots.Measured())
    assert slots.tested(tested, "b", slots.Measured()) == tested
    assert slots.staged(tested, "b", version="1.1.0", manifest="m", counter=2) == tested


def test_an_old_good_release_is_staged_again_without_being_written() -> None:
    both = slots.committed(on_trial(good("1.0.0"), "1.1.0"), minimum_counter=0)
    assert both.idle == "a"
    record = slots.staged(both, "a", version="1.0.0", manifest="1.0.0" * 8, counter=1)
    assert record.a.state is State.STAGED


def test_another_release_is_never_staged_over_a_good_one() -> None:
    both = slots.committed(on_trial(good("1.0.0"), "1.1.0"), minimum_counter=0)
    with pytest.raises(IllegalMoveError):
        slots.staged(both, "a", version="1.2.0", manifest="m", counter=3)


def test_a_damaged_last_good_slot_gives_way_to_the_good_one_beside_it() -> None:
    both = slots.committed(on_trial(good("1.0.0"), "1.1.0"), minimum_counter=0)
    record = slots.lost(both, "b")
    assert (record.active, record.last_good, record.b) == ("a", "a", Slot())
    nothing = slots.lost(record, "a")
    assert (nothing.active, nothing.last_good) == (None, None)


def test_a_damaged_idle_or_trial_slot_leaves_the_last_good_one() -> None:
    both = slots.committed(on_trial(good("1.0.0"), "1.1.0"), minimum_counter=0)
    assert slots.lost(both, "a").active == "b"
    trial = on_trial(good("1.0.0"), "1.1.0")
    assert (slots.lost(trial, "b").active, slots.lost(trial, "b").trial) == ("a", None)
    assert (slots.lost(trial, "a").active, slots.lost(trial, "a").last_good) == ("b", None)


def test_going_back_by_hand_needs_a_second_good_slot() -> None:
    assert slots.switched(Record("digits")) is None
    assert slots.switched(good("1.0.0")) is None
    assert slots.switched(on_trial(good("1.0.0"), "1.1.0")) is None
    both = slots.committed(on_trial(good("1.0.0"), "1.1.0"), minimum_counter=0)
    back = slots.switched(both)
    assert back is not None
    assert (back.active, back.last_good) == ("a", "a")


def test_what_is_older_than_the_floor_is_not_gone_back_to() -> None:
    record = slots.committed(on_trial(good("1.0.0"), "1.1.0", counter=5), minimum_counter=1)
    assert slots.beside(record) == "a"
    higher = slots.committed(on_trial(good("1.0.0"), "1.1.0", counter=5), minimum_counter=5)
    assert (slots.beside(higher), slots.switched(higher)) == (None, None)
    lost = slots.lost(higher, "b")
    assert (lost.active, lost.last_good) == (None, None)


def test_a_slot_carries_the_time_since_when_it_is_so() -> None:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    record = slots.stamped(good("1.0.0"), Record("digits"), first)
    assert record.a.since == first
    trial = slots.stamped(on_trial(record, "1.1.0"), record, later)
    assert (trial.a.since, trial.b.since) == (first, later)
    assert slots.stamped(slots.retired(trial, "b"), trial, later).b == Slot()


def test_what_the_self_test_measured_stays_with_the_slot() -> None:
    staged = slots.staged(Record("digits"), "a", version="1", manifest="m", counter=1)
    record = slots.tested(staged, "a", slots.Measured("CPUExecutionProvider", 300, 200))
    trial = slots.trial_begun(record, "a", tries=3, alone=True)
    assert (trial.a.provider, trial.a.peak_bytes, trial.a.resident_bytes) == ("CPUExecutionProvider", 300, 200)
    assert trial.alone
    assert not slots.committed(trial, minimum_counter=0).alone
    assert not slots.retired(trial, "a").alone
    assert not slots.lost(trial, "a").alone
