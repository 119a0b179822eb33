"""When a committed version has to go, and where to."""

from agent.update import crash_loop, slots
from agent.update.slots import Record, Slot, State

PAIR = Record(
    "digits", a=Slot(State.GOOD, "1.0.0", "m-a", 1), b=Slot(State.GOOD, "1.1.0", "m-b", 2), active="b", last_good="b"
)


def test_a_few_deaths_are_no_loop() -> None:
    deaths = [float(number) for number in range(crash_loop.DEATHS - 1)]
    assert not crash_loop.loops(deaths, 10)
    assert crash_loop.loops([*deaths, 9.0], 10)


def test_deaths_of_long_ago_do_not_count() -> None:
    deaths = [0.0] * crash_loop.DEATHS
    assert crash_loop.loops(deaths, crash_loop.WINDOW_SECONDS - 1)
    assert not crash_loop.loops(deaths, crash_loop.WINDOW_SECONDS)
    assert crash_loop.recent([0.0, 5.0], crash_loop.WINDOW_SECONDS) == (5.0,)


def test_two_versions_that_crash_do_not_take_turns() -> None:
    assert crash_loop.refuge(PAIR, bad=()) == "a"
    left = slots.switched(PAIR)
    assert left is not None
    assert (left.last_good, crash_loop.refuge(left, bad=("m-b",))) == ("a", None)


def test_nothing_is_a_refuge_during_a_trial_or_without_another_good_one() -> None:
    assert crash_loop.refuge(slots.lost(PAIR, "a"), bad=()) is None
    assert crash_loop.refuge(Record("digits", last_good="b", trial="a"), bad=()) is None
