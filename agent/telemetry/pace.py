"""How long a window is: short while something is new or wrong, then twice as long each time, up to the whole hour.

Short windows bring news soon, long ones cost few bytes (ADR 20). A full-length window ends at the full hour.

I/O: none.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pace:
    """`every` while a version is new, on probation or in trouble; after `settle` growing to `quiet`."""

    every: timedelta
    quiet: timedelta
    settle: timedelta

    def aim(self, before: timedelta | None, *, age: timedelta, calm: bool) -> timedelta:
        """Length to aim at after a window of aim `before`; `age` is how long this version is measured in this phase."""
        if before is None or not calm or age < self.settle:
            return self.every
        return max(self.every, min(self.quiet, 2 * before))

    def length(self, start: datetime, aim: timedelta) -> timedelta:
        """How long a window of this aim lasts from `start`: not beyond the hour, unless that is about to end."""
        left = self.quiet - (start - _EPOCH) % self.quiet
        return min(aim, left) if left >= self.every else aim
