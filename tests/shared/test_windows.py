"""Windows against the clock on the wall, minute by minute."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared import windows
from shared.windows import WEEKDAYS, Hours, Span, Window, ZoneError

BERLIN = "Europe/Berlin"
#: Gap and overlap at night, half an hour of daylight saving, a change at midnight, none at all, a day that was skipped.
ZONES = (BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "Pacific/Apia", "UTC")
#: Days around changes in these zones, and ordinary ones.
STARTS = (
    datetime(2026, 3, 27, 5, tzinfo=UTC),
    datetime(2026, 10, 24, 11, tzinfo=UTC),
    datetime(2026, 4, 3, tzinfo=UTC),
    datetime(2026, 9, 5, tzinfo=UTC),
    datetime(2026, 3, 7, tzinfo=UTC),
    datetime(2011, 12, 29, tzinfo=UTC),
    datetime(2026, 7, 1, 3, tzinfo=UTC),
)
wall_times = st.sampled_from([f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in (0, 15, 30, 59)])


@st.composite
def some_windows(draw: st.DrawFn, start: datetime) -> Window:
    begins = draw(wall_times)
    ends = draw(st.one_of(wall_times, st.just("24:00")).filter(lambda found: found != begins))
    days = draw(st.sets(st.sampled_from(WEEKDAYS), min_size=1))
    blackouts = draw(st.sets(st.integers(-1, 4), max_size=2))
    return Window(
        start=begins,
        end=ends,
        weekdays=tuple(day for day in WEEKDAYS if day in days),
        blackouts=tuple(start.date() + timedelta(days=number) for number in sorted(blackouts)),
        zone=draw(st.sampled_from(ZONES)),
        delay_seconds=draw(st.integers(0, 1200)),
    )


def on_the_wall(window: Window, instant: datetime) -> bool:
    """The definition, from scratch."""
    wall = instant.astimezone(ZoneInfo(window.zone))
    if wall.date() in window.blackouts:
        return False
    start, end = time.fromisoformat(window.start), window.end
    until = time.max if end == "24:00" else time.fromisoformat(end)
    days = {WEEKDAYS.index(day) for day in window.weekdays}
    if start < until:
        return start <= wall.time() < until and wall.weekday() in days
    return (wall.time() >= start and wall.weekday() in days) or (
        wall.time() < until and (wall.weekday() - 1) % 7 in days
    )


@given(data=st.data(), start=st.sampled_from(STARTS))
@settings(max_examples=40, deadline=None)
def test_a_window_is_what_the_wall_says_minute_by_minute(data: st.DataObject, start: datetime) -> None:
    window = data.draw(some_windows(start))
    minutes = [start + timedelta(minutes=number) for number in range(3 * 24 * 60)]
    truth = [on_the_wall(window, minute) for minute in minutes]
    found = list(windows.openings(window, start, days=5))
    assert [any(span.start <= minute < span.end for span in found) for minute in minutes] == truth
    for number in range(0, len(minutes), 97):
        assert windows.is_open(window, minutes[number]) is truth[number]
    whole = windows.open_between(window, start, minutes[-1] + timedelta(minutes=1))
    assert whole == timedelta(minutes=sum(truth))


@given(data=st.data(), start=st.sampled_from(STARTS), needed=st.integers(1, 120), late=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_what_begins_is_inside_and_ends_inside_or_begins_in_the_first_half(
    data: st.DataObject, start: datetime, needed: int, late: int
) -> None:
    window = data.draw(some_windows(start))
    now, takes = start + timedelta(minutes=late), timedelta(minutes=needed)
    begins = windows.begin(window, now, needed=takes)
    if begins is None:
        assert next(windows.openings(window, now), None) is None
        return
    assert begins >= now
    assert on_the_wall(window, begins)
    (span,) = [found for found in windows.openings(window, now) if found.start <= begins < found.end]
    assert begins + takes <= span.end or begins < span.start + span.length / 2
    assert windows.begin(window, begins, needed=takes) == begins  # asked again then, it may


def test_the_hour_that_spring_skips_is_not_there() -> None:
    window = Window(start="02:00", end="04:00", zone=BERLIN)
    assert windows.opening(window, datetime(2026, 3, 28, 12, tzinfo=UTC)) == Span(
        datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 29, 2, tzinfo=UTC)
    )
    inside = Window(start="02:00", end="03:00", zone=BERLIN)
    found = windows.opening(inside, datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert found is not None
    assert found.start == datetime(2026, 3, 30, 0, tzinfo=UTC)  # a day later


def test_the_hour_that_autumn_repeats_is_inside_twice() -> None:
    window = Window(start="02:00", end="04:00", zone=BERLIN)
    found = windows.opening(window, datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert found is not None
    assert found.length == timedelta(hours=3)
    short = Window(start="02:15", end="02:45", zone=BERLIN)
    twice = [span.start for span in windows.openings(short, datetime(2026, 10, 24, 12, tzinfo=UTC), days=2)][:2]
    assert twice == [datetime(2026, 10, 25, 0, 15, tzinfo=UTC), datetime(2026, 10, 25, 1, 15, tzinfo=UTC)]


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    window = Window(start="22:00", end="05:00", weekdays=("sat",), zone="UTC")
    assert windows.opening(window, datetime(2026, 11, 23, tzinfo=UTC)) == Span(
        datetime(2026, 11, 28, 22, tzinfo=UTC), datetime(2026, 11, 29, 5, tzinfo=UTC)
    )
    dark = window.model_copy(update={"blackouts": (date(2026, 11, 29),)})
    assert windows.opening(dark, datetime(2026, 11, 23, tzinfo=UTC)) == Span(
        datetime(2026, 11, 28, 22, tzinfo=UTC), datetime(2026, 11, 29, 0, tzinfo=UTC)
    )


def test_devices_do_not_all_begin_at_once_not_even_in_a_short_window() -> None:
    now, needed = datetime(2026, 11, 23, tzinfo=UTC), timedelta(minutes=6)
    begins = {
        windows.begin(Window(start="02:00", end="02:10", zone="UTC", delay_seconds=delay), now, needed=needed)
        for delay in range(0, 600, 60)
    }
    assert len(begins) > 3
    assert max(found for found in begins if found) < datetime(2026, 11, 23, 2, 5, tzinfo=UTC)


def test_windows_that_were_missed_are_counted() -> None:
    window = Window(start="02:00", end="04:00", zone="UTC")
    told = datetime(2026, 11, 23, 3, tzinfo=UTC)
    assert windows.missed(window, told, told + timedelta(hours=2)) == 0  # it came in the middle of that one
    assert windows.missed(window, told, told + timedelta(days=2, hours=2)) == 2


def test_black_out_dates_put_off_an_opening_and_may_leave_none() -> None:
    now, first = datetime(2026, 11, 23, tzinfo=UTC), date(2026, 11, 20)
    weeks = [first + timedelta(days=number) for number in range(420)]
    window = Window(start="02:00", end="04:00", zone="UTC", blackouts=tuple(weeks[:100]))
    found = windows.opening(window, now)
    assert found is not None
    assert found.start.date() == first + timedelta(days=100)
    mondays = tuple(day for day in weeks if day.weekday() == 0)
    never = Window(start="02:00", end="04:00", weekdays=("mon",), zone="UTC", blackouts=mondays)
    assert windows.begin(never, now, needed=timedelta(0)) is None


@pytest.mark.parametrize(
    "said",
    [
        {"start": "2:00", "end": "04:00"},
        {"start": "02:00", "end": "02:00"},
        {"start": "24:00", "end": "02:00"},
        {"start": "02:00", "end": "04:00", "weekdays": []},
        {"start": "02:00", "end": "04:00", "weekdays": ["monday"]},
        {"start": "02:00", "end": "04:00", "moon": "full"},
    ],
)
def test_what_is_not_a_window_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Hours.model_validate(said)


@pytest.mark.parametrize("name", ["Mars/Base", "../etc/passwd", "Europe", ""])
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(ZoneError):
        windows.check_zone(name)
    assert windows.check_zone(BERLIN) == BERLIN
