"""The time of a report: `7d`, `24h`, or an instant, cut into the columns of its timelines.

    up to 48 hours   a column for each hour           up to 60 days   a column for each day
    longer           a column for each two, three ... days: a page has room for 60

An hour is the calendar's (`fleet/telemetry/vectors.py`): 1/24 of the detection window.

I/O: none.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from fleet.reports.errors import SpanError
from fleet.telemetry.vectors import HOURS_A_DAY, Calendar

COLUMNS: Final = 60
HOURLY: Final = 48
#: Sums of days are kept for no longer than this by default, and nobody asks for more.
LONGEST: Final = timedelta(days=3660)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Columns:
    """`number` columns of `hours` each, from the hour `first` on."""

    first: int
    hours: int
    number: int

    @property
    def kind(self) -> str:
        """Which sums it is made from."""
        return "hour" if self.hours < HOURS_A_DAY else "day"

    def place(self, hour: int) -> int | None:
        """The column that holds `hour`; None outside."""
        found = (hour - self.first) // self.hours
        return found if 0 <= found < self.number else None


def since(text: str, now: datetime) -> datetime:
    """The instant that `7d` (so long ago) or `2026-11-01T08:00:00Z` names.

    Raises:
        SpanError: another form, or not in the past.
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if match:
        length = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        found = now - min(length, 2 * LONGEST)
    else:
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            raise SpanError(f"{text[:40]!r} is neither a length of time nor an instant") from None
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found >= now:
        raise SpanError(f"{text[:40]!r} is not in the past")
    if now - found > LONGEST:
        raise SpanError(f"{text[:40]!r} is longer ago than anything is kept")
    return found


def columns(calendar: Calendar, begin: datetime, end: datetime) -> Columns:
    """From the start of the hour or day that holds `begin` to the one that holds `end`."""
    first, last = calendar.hour(begin), calendar.hour(end)
    if last - first < HOURLY:
        return Columns(first, 1, last - first + 1)
    days = calendar.day(last) - calendar.day(first) + 1
    together = -(-days // COLUMNS)
    return Columns(calendar.day(first) * HOURS_A_DAY, together * HOURS_A_DAY, -(-days // together))
