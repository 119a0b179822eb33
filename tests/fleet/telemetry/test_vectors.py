from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.telemetry.vectors import Calendar, pack, unpack

NOW = datetime(2026, 1, 10, 12, 0, 30, tzinfo=UTC)
HOURLY = Calendar.of(1.0)


@given(st.lists(st.integers(0, 2**50), max_size=60))
def test_what_is_packed_comes_back(counts: list[int]) -> None:
    found = unpack(pack(np.array(counts, dtype=np.int64)), len(counts))
    assert found is not None
    assert found.tolist() == counts


def test_other_lengths_and_damage_give_nothing() -> None:
    stored = pack(np.arange(20))
    for damaged in (b"", stored[:5], b"\x03" + stored[1:], stored[:-3], stored[:1]):
        assert unpack(damaged, 20) is None
    assert unpack(stored, 21) is None


def test_an_hour_of_a_feature_takes_few_bytes() -> None:
    counts = np.random.default_rng(1).multinomial(42, np.full(18, 1 / 18), 20)
    stored = pack(np.append(counts, np.zeros((20, 1), dtype=np.int64), axis=1).ravel())
    assert len(stored) / 20 < 20


@pytest.mark.parametrize(
    ("ago", "hours", "believed"),
    [
        (timedelta(0), 0, True),
        (timedelta(hours=5), 5, True),
        (timedelta(days=7), 168, True),
        (timedelta(days=13), 312, True),
        (timedelta(days=15), 0, False),
        (timedelta(minutes=-50), 0, True),  # a little ahead: now
        (timedelta(hours=-3), 0, False),
        (timedelta(days=20000), 0, False),
    ],
)
def test_a_window_belongs_to_its_own_hour_if_its_clock_can_be_right(ago: timedelta, hours: int, believed: bool) -> None:
    at = NOW - ago
    assert HOURLY.place(at, at, NOW) == (HOURLY.hour(NOW) - hours, believed)


def test_the_middle_of_a_window_decides_and_hours_follow_the_detection_window() -> None:
    start = datetime(2026, 1, 10, 10, 50, tzinfo=UTC)
    assert HOURLY.place(start, start + timedelta(minutes=30), NOW)[0] == HOURLY.hour(start) + 1
    short = Calendar.of(12 / 86400)
    assert short.hour(NOW + timedelta(seconds=1)) == short.hour(NOW) + 2
    assert short.begin(short.hour(NOW)) <= NOW < short.begin(short.hour(NOW) + 1)
    assert HOURLY.day(HOURLY.hour(NOW)) == (NOW - datetime(1970, 1, 1, tzinfo=UTC)).days
