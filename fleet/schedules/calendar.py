"""When a schedule is due: wall times and cron texts of a zone, as instants.

I/O: none.
"""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fleet.schedules.errors import ScheduleTimeError
from shared.windows import check_zone

_FIELDS: Final = 5


def instant(said: datetime, zone: str) -> datetime:
    """The instant that `said` names, in UTC; without a zone of its own it is wall time of `zone`.

    What the wall shows twice is the first of both; what it never shows is later by what was skipped.

    Raises:
        ZoneError: there is no such zone.
    """
    if said.tzinfo is not None:
        return said.astimezone(UTC)
    return said.replace(tzinfo=ZoneInfo(check_zone(zone)), fold=0).astimezone(UTC)


def following(cron: str, zone: str, after: datetime) -> datetime:
    """The next instant after `after` that `cron` names, in UTC.

    As in Debian's cron: what the wall never shows runs at once after, what it shows twice runs once.

    Raises:
        ScheduleTimeError: not a cron text of five fields, or one that never comes.
        ZoneError: there is no such zone.
    """
    if len(cron.split()) != _FIELDS:
        raise ScheduleTimeError(f"{cron[:80]!r} has not the five fields minute, hour, day, month, weekday")
    try:
        found: datetime = next(CronSim(cron, after.astimezone(ZoneInfo(check_zone(zone)))))
    except CronSimError as error:
        raise ScheduleTimeError(f"{cron[:80]!r} is not a cron text: {error}") from None
    except StopIteration:
        raise ScheduleTimeError(f"{cron[:80]!r} never comes") from None
    return found.astimezone(UTC)
