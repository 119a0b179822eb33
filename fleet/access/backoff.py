"""How long somebody waits who gave wrong passwords: a few are free, then each costs twice the time of the one before.

I/O: none.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

Kind = Literal["name", "address"]

#: Wrong passwords in a row that cost nothing. Behind one address there may be a whole office.
FREE: Final[dict[Kind, int]] = {"name": 5, "address": 20}
FIRST: Final = timedelta(seconds=2)
LONGEST: Final = timedelta(minutes=10)
#: After so long without another one they are forgotten.
FORGOTTEN: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one name or address."""

    failures: int = 0
    until: datetime | None = None  # nothing is tried before


def left(record: Record, now: datetime) -> timedelta:
    """How long it still has to wait."""
    return max(timedelta(0), record.until - now) if record.until is not None else timedelta(0)


def counted(record: Record, kind: Kind, now: datetime) -> Record:
    """After one more attempt, which counts as failed until it turns out right."""
    failures = record.failures + 1
    over = failures - FREE[kind]
    if over < 0:
        return Record(failures)
    doublings = min(over, 20)  # beyond it the longest wait is reached anyway
    return Record(failures, now + min(LONGEST, FIRST * 2**doublings))


def forgiven(record: Record, kind: Kind) -> Record | None:
    """After an attempt that turned out right; None: nothing is to be remembered.

    A name starts anew. An address only gets this one back: who knows one password may not try others for ever.
    """
    if kind == "name" or record.failures <= 1:
        return None
    return Record(record.failures - 1)
