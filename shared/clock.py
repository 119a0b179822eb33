"""Wall and monotonic time behind one protocol, so that decisions can be tested at any hour.

I/O: clock.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What parts that need time are given."""

    def now(self) -> datetime:
        """Wall time, aware, UTC. May jump: show it, never compare it across machines."""

    def monotonic(self) -> float:
        """Seconds since some start. Never jumps back: use it for every wait and deadline."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T10:36:43.120Z`: UTC with milliseconds, the form of the whole outside."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
