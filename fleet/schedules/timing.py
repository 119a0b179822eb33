"""When a device of a rollout with a window may be told and may swap, and what of the wait counts as its own.

A device whose agent knows windows is told at once: it fetches and tests ahead, and waits for its window by itself,
also while the manager is away. Any other one is told inside its window.

I/O: none.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shared.clock import rfc3339
from shared.errors import BadInputError
from shared.windows import Hours, Window, begin, check_zone, missed, open_between

#: Label of a device: its IANA time zone.
ZONE_LABEL: Final = "timezone"
#: What an agent says in `DeviceState.features` when it waits for windows by itself.
FEATURE: Final = "windows"
#: What a swap and its probation usually take; a device knows better, this is for those that cannot wait.
NEEDED: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Timetable:
    """The window of a rollout, as its settings were when it began."""

    hours: Hours
    zone: str  # of devices that name none
    jitter_seconds: int = 0

    def text(self) -> str:
        """`02:00 to 04:00, local time of each device (UTC without one)`."""
        return f"{self.hours.text()}, local time of each device ({self.zone} without one)"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a window means for one device now."""

    held: str | None = None  # why it is not told
    closed: timedelta = timedelta(0)  # of the time since it was told


def zone_of(labels: Mapping[str, Any], default: str) -> str:
    """The zone of a device; a name that is unknown here counts as none."""
    try:
        return check_zone(str(labels.get(ZONE_LABEL) or default))
    except BadInputError:
        return default


def window_of(table: Timetable, rollout: str, device: str, labels: Mapping[str, Any]) -> Window:
    """The window of one device in a rollout. Its delay is the same whenever it is asked."""
    digest = hashlib.sha256(f"{rollout}\0{device}".encode()).digest()
    return Window(
        **table.hours.model_dump(),
        zone=zone_of(labels, table.zone),
        delay_seconds=int.from_bytes(digest[:8]) % (table.jitter_seconds + 1),
    )


def turn(window: Window | None, *, waits_itself: bool, online: bool, told_at: datetime | None, now: datetime) -> Turn:
    """May it be told, and how much of the time since then does not count."""
    if window is None:
        return Turn()
    if told_at is not None:
        since = now - told_at
        return Turn(closed=since - open_between(window, told_at, now) if waits_itself and since > timedelta(0) else
                    timedelta(0))  # fmt: skip
    if waits_itself:
        return Turn()
    if not online:
        return Turn(held="it is offline, and its agent is too old to wait for a window by itself")
    opens = begin(window, now, needed=NEEDED)
    if opens is None:
        return Turn(held=f"its window {window.text()} never opens: check weekdays and black-out dates")
    return Turn(held=None if opens <= now else f"its window opens at {rfc3339(opens)}, {window.zone}")


def passed(window: Window, told_at: datetime, now: datetime) -> int:
    """How many windows a device that was told let pass."""
    return missed(window, told_at, now)
