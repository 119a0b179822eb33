"""Which message a channel gets next, and when: a channel that fails is asked seldom, and by one message at a time.

    failure 1, 2, 3 ... in a row   ->  next try after 30 s, 1 min, 2 min ... 1 h, each by chance up to a half less
    a message gets four tries, then the others get theirs; after three days it is given up

I/O: none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

FIRST: Final = timedelta(seconds=30)
LONGEST: Final = timedelta(hours=1)
GIVE_UP: Final = timedelta(days=3)
TRIES_IN_A_ROW: Final = 4


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that was not delivered yet."""

    id: str
    attempts: int
    owed_at: datetime


def pause(failures: int, chance: float) -> timedelta:
    """How long a channel rests after so many failures in a row; `chance` is between 0 and 1."""
    full = min(LONGEST, FIRST * (1 << min(failures - 1, 16)))
    return full * (1 - chance / 2)


def next_of(waiting: Iterable[Waiting], next_at: datetime | None, now: datetime) -> Waiting | None:
    """What the channel is sent now; None while it rests or nothing waits.

    The oldest first, but one that fails again and again does not hold up the others for ever.
    """
    if next_at is not None and next_at > now:
        return None
    order = sorted(waiting, key=lambda one: (one.attempts // TRIES_IN_A_ROW, one.owed_at, one.id))
    return order[0] if order else None


def hopeless(one: Waiting, now: datetime) -> bool:
    """True when a message is too old to be tried again."""
    return now - one.owed_at >= GIVE_UP
