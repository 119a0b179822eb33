"""How long windows are."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.pace import Pace

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PACE = Pace(every=MINUTE, quiet=HOUR, settle=timedelta(minutes=10))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "age", "calm"),
    [
        (None, HOUR, True),  # the first window
        (MINUTE, timedelta(minutes=9), True),  # the version is new
        (HOUR, HOUR, False),  # something failed
    ],
)
def test_while_something_is_new_or_wrong_windows_are_short(before: timedelta | None, age: timedelta, calm: bool):
    assert PACE.aim(before, age=age, calm=calm) == MINUTE


def test_then_they_double_up_to_the_hour():
    aim, seen = MINUTE, []
    for _ in range(8):
        aim = PACE.aim(aim, age=HOUR, calm=True)
        seen.append(aim // MINUTE)
    assert seen == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_window_ends_at_the_full_hour():
    assert PACE.length(NOON, HOUR) == HOUR
    assert PACE.length(NOON + timedelta(minutes=50), HOUR) == timedelta(minutes=10)
    assert PACE.length(NOON + timedelta(minutes=50), MINUTE) == MINUTE


def test_no_window_is_made_for_the_last_moments_of_an_hour():
    assert PACE.length(NOON + timedelta(minutes=59, seconds=30), HOUR) == HOUR


@given(seconds=st.integers(0, 7200), minutes=st.integers(1, 60))
def test_no_window_is_longer_than_asked_or_ends_at_once(seconds: int, minutes: int):
    length = PACE.length(NOON + timedelta(seconds=seconds), minutes * MINUTE)
    assert MINUTE <= length <= minutes * MINUTE


def test_a_quiet_day_is_27_windows_and_not_1440():
    at, began, aim, number = NOON + timedelta(minutes=7), NOON + timedelta(minutes=7), None, 0
    while at < began + timedelta(days=1):
        aim = PACE.aim(aim, age=at - began, calm=True)
        at += PACE.length(at, aim)
        number += 1
    assert number <= 10 + 6 + 1 + 24
