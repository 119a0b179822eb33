from datetime import UTC, datetime, timedelta

import pytest

from fleet.reports.errors import SpanError
from fleet.reports.span import COLUMNS, columns, since
from fleet.telemetry.vectors import Calendar

NOW = datetime(2026, 11, 26, 10, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7d", NOW - timedelta(days=7)),
        (" 24h ", NOW - timedelta(hours=24)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:00:00+02:00", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ],
)
def test_a_length_of_time_or_an_instant_is_understood(text: str, found: datetime) -> None:
    assert since(text, NOW) == found


@pytest.mark.parametrize("text", ["", "7", "d7", "0d", "-3d", "2027-01-01", "999999w", "1990-01-01", "<b>", "7d7d"])
def test_nonsense_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(SpanError) as caught:
        since(text, NOW)
    assert "--since 7d" in caught.value.remedy


def test_a_day_has_a_column_for_each_hour_and_a_week_one_for_each_day() -> None:
    calendar = Calendar.of(1.0)
    day = columns(calendar, NOW - timedelta(days=1), NOW)
    assert (day.kind, day.hours, day.number) == ("hour", 1, 25)
    week = columns(calendar, NOW - timedelta(days=7), NOW)
    assert (week.kind, week.hours, week.number) == ("day", 24, 8)
    assert week.place(calendar.hour(NOW)) == 7
    assert week.place(week.first - 1) is None


def test_a_long_time_gets_wider_columns_never_more_of_them() -> None:
    for days in (59, 60, 61, 200, 3000):
        found = columns(Calendar.of(1.0), NOW - timedelta(days=days), NOW)
        assert found.number <= COLUMNS
        assert found.place(Calendar.of(1.0).hour(NOW)) == found.number - 1
