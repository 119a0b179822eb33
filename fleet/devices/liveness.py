"""Is a device there? What it said last, and for how long it has been silent, decide.

I/O: none.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

#: Missed heartbeats after which a device is late, and after which it counts as gone.
LATE_BEATS: Final = 1.5
GONE_BEATS: Final = 3.0


class Presence(StrEnum):
    """The word shown for a device."""

    NEVER = "never"  # enrolled and not heard since
    ONLINE = "online"
    LATE = "late"  # its heartbeat is overdue
    OFFLINE = "offline"  # it said so, its last will said so, or it has been silent for too long


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence is ordinary. Nobody is blamed for what happened while the manager was away."""

    heartbeat: timedelta
    listening_since: datetime

    def away(self, seen_at: datetime | None, now: datetime) -> bool:
        """True when a device that was heard at `seen_at` has been silent for too long."""
        return seen_at is not None and now - max(seen_at, self.listening_since) > GONE_BEATS * self.heartbeat

    def presence(self, *, online: bool, seen_at: datetime | None, now: datetime) -> Presence:
        """What a device is, whose newest message was `online` and came at `seen_at`."""
        if seen_at is None:
            return Presence.NEVER
        silent = now - max(seen_at, self.listening_since)
        if not online or self.away(seen_at, now):
            return Presence.OFFLINE
        return Presence.LATE if silent > LATE_BEATS * self.heartbeat else Presence.ONLINE
