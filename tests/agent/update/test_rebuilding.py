"""A slot record made anew: what may be taken for good, and what may not."""

from dataclasses import replace

import pytest

from agent.update.lifecycle import SlotName, Update
from agent.update.lifecycle import State as Step
from agent.update.rebuilding import Found, rebuilt
from agent.update.slots import Record, State

OLD = Found("1.0.0", "m-old", counter=1, minimum_counter=0)
NEW = Found("1.1.0", "m-new", counter=2, minimum_counter=0)
UPDATE = Update(assignment=2, model="digits", version="1.1.0", manifest="m-new", sealed_key="k", slot="b")


def found(**held: Found) -> dict[SlotName, Found]:
    return {"a" if name == "a" else "b": release for name, release in held.items()}


def test_nothing_is_known_of_empty_slots() -> None:
    assert rebuilt("digits", {}, goods=(), floor=3, current=None) == Record("digits", minimum_counter=3)


@pytest.mark.parametrize(("goods", "serves"), [(("m-old", "m-new"), "b"), (("m-new", "m-old"), "a")])
def test_the_good_one_that_served_last_serves(goods: tuple[str, ...], serves: str) -> None:
    record = rebuilt("digits", found(a=OLD, b=NEW), goods=goods, floor=0, current=None)
    assert (record.active, record.last_good, record.trial) == (serves, serves, None)
    assert (record.a.state, record.b.state) == (State.GOOD, State.GOOD)
    assert (record.b.version, record.b.manifest, record.b.counter) == ("1.1.0", "m-new", 2)


def test_what_was_never_committed_is_not_good() -> None:
    record = rebuilt("digits", found(a=OLD, b=NEW), goods=("m-old",), floor=0, current=None)
    assert (record.last_good, record.b.state) == ("a", State.EMPTY)


def test_what_is_older_than_the_floor_does_not_serve() -> None:
    record = rebuilt("digits", found(a=OLD), goods=("m-old",), floor=2, current=None)
    assert (record.last_good, record.a.state, record.minimum_counter) == (None, State.EMPTY, 2)


def test_the_floor_of_a_good_release_holds_though_the_journal_has_not_got_it() -> None:
    strict = replace(NEW, minimum_counter=2)
    record = rebuilt("digits", found(a=OLD, b=strict), goods=("m-old", "m-new"), floor=0, current=None)
    assert (record.minimum_counter, record.last_good, record.a.state) == (2, "b", State.EMPTY)


@pytest.mark.parametrize(
    ("step", "state"),
    [
        (Step.FETCHING, State.EMPTY),
        (Step.ASSEMBLED, State.EMPTY),
        (Step.STAGED, State.STAGED),
        (Step.SELF_TESTED, State.TESTED),
        (Step.SHADOWING, State.TESTED),
        (Step.SHADOWED, State.TESTED),
        (Step.PROBATION, State.PROBATION),
        (Step.PROVEN, State.PROBATION),
        (Step.CONDEMNED, State.EMPTY),
    ],
)
def test_an_update_finds_its_slot_as_far_as_it_had_come(step: Step, state: State) -> None:
    current = replace(UPDATE, state=step)
    record = rebuilt("digits", found(a=OLD, b=NEW), goods=("m-old", "m-new"), floor=0, current=current)
    assert (record.b.state, record.last_good) == (state, "a")
    on_trial = state is State.PROBATION
    assert (record.trial, record.tries_left, record.active) == ("b" if on_trial else None, 0, "b" if on_trial else "a")


def test_an_update_that_is_over_or_of_another_model_says_nothing() -> None:
    for current in (replace(UPDATE, state=Step.COMMITTED), replace(UPDATE, model="letters", state=Step.STAGED)):
        record = rebuilt("digits", found(a=OLD, b=NEW), goods=("m-old", "m-new"), floor=0, current=current)
        assert record.last_good == "b"


def test_other_files_than_the_updates_own_are_no_step_of_it() -> None:
    current = replace(UPDATE, manifest="m-third", state=Step.STAGED)
    assert rebuilt("digits", found(b=NEW), goods=("m-new",), floor=0, current=current).b.state is State.EMPTY
