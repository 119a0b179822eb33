"""Numbers that never come twice with other content, not even after a manager was restored from an old backup.

Devices go by versions of signed documents, numbers of assignments and counters of releases: lower ones are refused.
What was numbered between a backup and its restore is known to nobody, so a restore sets a floor far above all of it:
the seconds since 2026. Nobody numbers faster than once a second for long, so a later floor is above an earlier one,
and above all that was numbered from there (ADR 35).

I/O: none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


def floor_at(now: datetime) -> int:
    """The floor that a restore at `now` sets; at least 1."""
    return max(1, int((now - _BEGINNING).total_seconds()))


def following(number: int, floor: int) -> int:
    """What comes after `number`."""
    return max(number + 1, floor)
