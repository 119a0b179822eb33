"""Maintenance windows: when a device may swap, in its own time zone, daylight saving included.

A window is wall time: an instant is inside when the clock on the wall of the device says so. What the wall never
shows (the hour that spring skips) is not there, and what it shows twice (the hour of autumn) is inside twice.

    Hours     02:00 to 04:00, some weekdays, not on some dates
    Window    the same in one zone, with the delay of one device: what an assignment carries

I/O: none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, StringConstraints, model_validator

from shared.errors import BadInputError

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WallTime = Annotated[str, StringConstraints(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
ZoneName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$", max_length=64)]

WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: How far ahead an opening is looked for: black-out dates may not keep a device waiting for longer.
HORIZON_DAYS: Final = 400
_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Span:
    """Open from `start` on and before `end`, both in UTC."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


class Hours(BaseModel):
    """When it is open, on the wall. `end` may be on the next day; that window belongs to the day it begins on.

    A black-out date is closed from midnight to midnight, whatever day a window began on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: WallTime
    end: WallTime
    weekdays: tuple[Weekday, ...] = WEEKDAYS
    blackouts: Annotated[tuple[date, ...], Field(max_length=400)] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.start == self.end or self.start == "24:00":
            raise ValueError("a window begins and ends at different times; the whole day is 00:00 to 24:00")
        if not self.weekdays:
            raise ValueError("a window needs a weekday")
        return self

    def text(self) -> str:
        """`02:00 to 04:00 on sat, sun`."""
        days = "" if set(self.weekdays) == set(WEEKDAYS) else f" on {', '.join(self.weekdays)}"
        return f"{self.start} to {self.end}{days}"


class Window(Hours):
    """The hours of one device: its zone, and how long after an opening it begins, so that not all do at once."""

    zone: ZoneName
    delay_seconds: NonNegativeInt = 0

    def text(self) -> str:
        """`02:00 to 04:00 Europe/Berlin`."""
        return f"{super().text()} {self.zone}"


class ZoneError(BadInputError):
    """No time zone has this name here."""

    code = "E_ZONE"
    default_remedy = "use a name of the IANA database, such as Europe/Berlin; `tzdata` brings newer ones"


def check_zone(name: str) -> str:
    """`name` itself, if it is known here.

    Raises:
        ZoneError: it is not.
    """
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ZoneError(f"there is no time zone {name[:64]!r}") from None
    return name


# --- when ---------------------------------------------------------------------------------------------------


def is_open(window: Window, now: datetime) -> bool:
    """True when `now` is inside."""
    return any(span.start <= now < span.end for span in _on(window, now.astimezone(UTC).date()))


def opening(window: Window, now: datetime) -> Span | None:
    """The opening that `now` is in, or else the next one; None when there is none within `HORIZON_DAYS`."""
    return next((span for span in openings(window, now)), None)


def openings(window: Window, since: datetime, days: int = HORIZON_DAYS) -> Iterator[Span]:
    """Every opening that ends after `since`, in order."""
    first = since.astimezone(UTC).date() - 2 * _DAY  # the opening that reaches into `since` may have begun before
    found: Span | None = None
    for number in range(days + 3):
        for span in _on(window, first + number * _DAY):
            if found is not None and span.start == found.end:
                found = Span(found.start, span.end)
                continue
            if found is not None and found.end > since:
                yield found
            found = span
        if found is not None and found.end > since and found.length > 10 * _DAY:
            break  # open around the clock: one opening without an end in sight
    if found is not None and found.end > since:
        yield found


def open_between(window: Window, start: datetime, end: datetime) -> timedelta:
    """For how long it was open from `start` to `end`."""
    if end <= start:
        return timedelta(0)
    first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
    total = timedelta(0)
    for number in range(min((last - first).days, HORIZON_DAYS) + 1):
        for span in _on(window, first + number * _DAY):
            total += max(timedelta(0), min(span.end, end) - max(span.start, start))
    return total


def begin(window: Window, now: datetime, *, needed: timedelta) -> datetime | None:
    """The first instant from `now` on at which work that takes `needed` may begin; None without an opening.

    It ends within its opening, or, where an opening is shorter than twice `needed`, begins in the first half of it.
    """
    for span in openings(window, now):
        latest = max(span.end - needed, span.start + span.length / 2)
        slack = latest - span.start
        earliest = span.start + (timedelta(seconds=window.delay_seconds) % slack if slack else slack)
        if now < latest:
            return max(now, earliest)
    return None


def missed(window: Window, since: datetime, now: datetime) -> int:
    """How many openings began after `since` and are over."""
    return sum(span.start >= since and span.end <= now for span in _until(window, since, now))


def _until(window: Window, since: datetime, now: datetime) -> Iterator[Span]:
    for span in openings(window, since):
        if span.start > now:
            return
        yield span


# --- one day ------------------------------------------------------------------------------------------------


def _on(window: Hours, day: date) -> tuple[Span, ...]:
    """What is open during one day of UTC."""
    zone = window.zone if isinstance(window, Window) else "UTC"
    return _spans(_minutes(window.start), _minutes(window.end), window.weekdays, window.blackouts, zone, day)


@lru_cache(maxsize=4096)
def _spans(
    start: int, end: int, weekdays: tuple[Weekday, ...], blackouts: tuple[date, ...], zone: str, day: date
) -> tuple[Span, ...]:
    place, dawn = ZoneInfo(zone), datetime.combine(day, time(0), UTC)
    edges = sorted({dawn, dawn + _DAY, *_changes(place, dawn), *_wall_edges((0, start, end), place, dawn)})
    found: list[Span] = []
    for left, right in pairwise(edges):
        if not _inside(left.astimezone(place), start, end, weekdays, blackouts):
            continue
        if found and found[-1].end == left:
            found[-1] = Span(found[-1].start, right)
        else:
            found.append(Span(left, right))
    return tuple(found)


def _inside(wall: datetime, start: int, end: int, weekdays: Sequence[Weekday], blackouts: Sequence[date]) -> bool:
    today, minute = wall.date(), wall.hour * 60 + wall.minute
    if today in blackouts:
        return False
    if start < end:
        return start <= minute < end and WEEKDAYS[today.weekday()] in weekdays
    if minute >= start:
        return WEEKDAYS[today.weekday()] in weekdays
    return minute < end and WEEKDAYS[(today.weekday() - 1) % 7] in weekdays


def _wall_edges(minutes: Sequence[int], place: ZoneInfo, dawn: datetime) -> Iterator[datetime]:
    """Every instant of the day at which the clock on the wall reaches one of `minutes`."""
    for shift in (-1, 0, 1):
        wall_day = dawn.date() + shift * _DAY
        for minute in minutes:
            for fold in (0, 1):
                wall = datetime.combine(wall_day, time(0)) + timedelta(minutes=minute % _MIDNIGHT)
                instant = wall.replace(tzinfo=place, fold=fold).astimezone(UTC)
                if dawn < instant < dawn + _DAY:
                    yield instant


def _changes(place: ZoneInfo, dawn: datetime) -> Iterator[datetime]:
    """The instants of the day at which the zone changes its offset, to the second."""
    step = timedelta(hours=6)
    for number in range(4):
        low, high = dawn + number * step, dawn + (number + 1) * step
        before = low.astimezone(place).utcoffset()
        if high.astimezone(place).utcoffset() == before:
            continue
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
            low, high = (middle, high) if middle.astimezone(place).utcoffset() == before else (low, middle)
        yield high


def _minutes(wall: str) -> int:
    return int(wall[:2]) * 60 + int(wall[3:])
