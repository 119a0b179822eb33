"""Which hour and day a telemetry window belongs to, and how the sums of an hour are stored.

An hour is 1/24 of `drift_detection.detection_window_days`: an hour by default, shorter where somebody wants verdicts
within minutes. A stored vector is one byte for the width of its numbers and the numbers, compressed: about 13 bytes
for a feature and hour.

I/O: none.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.telemetry.rings import HOURS

HOURS_A_DAY: Final = 24
#: Older windows than this no outbox keeps.
BELIEVED_HOURS: Final = 2 * HOURS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final[Mapping[int, np.dtype[Any]]] = {
    width: np.dtype(kind) for width, kind in ((1, "<u1"), (2, "<u2"), (4, "<u4"), (8, "<i8"))
}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Time in hours of `length` since 1970."""

    length: timedelta

    @classmethod
    def of(cls, detection_window_days: float) -> "Calendar":
        """The calendar whose day is the detection window."""
        return cls(timedelta(days=detection_window_days) / HOURS_A_DAY)

    def hour(self, at: datetime) -> int:
        """The hour that holds `at`."""
        return (at - _EPOCH) // self.length

    def day(self, hour: int) -> int:
        """The day that holds `hour`."""
        return hour // HOURS_A_DAY

    def begin(self, hour: int) -> datetime:
        """The first instant of `hour`."""
        return _EPOCH + hour * self.length

    def place(self, start: datetime, end: datetime, arrived: datetime) -> tuple[int, bool]:
        """The hour of a window's middle by its own times, and whether they can be believed.

        A clock that is ahead, or so far behind that no outbox would have kept the window, is not: then the hour is
        the one of its arrival.
        """
        now, own = self.hour(arrived), self.hour(start + (end - start) / 2)
        believed = now - BELIEVED_HOURS < own <= now + 1
        return (min(own, now), True) if believed else (now, False)


def pack(vector: NDArray[np.int64]) -> bytes:
    """The stored form of counts, none below zero."""
    top = int(vector.max(initial=0))
    width = next(width for width, kind in _KINDS.items() if top <= np.iinfo(kind).max)
    return bytes([width]) + zlib.compress(vector.astype(_KINDS[width]).tobytes(), 6)


def unpack(stored: bytes, size: int) -> NDArray[np.int64] | None:
    """The counts; None when they are not `size` numbers (of another baseline, or damaged)."""
    try:
        raw = zlib.decompress(stored[1:])
        kind = _KINDS[stored[0]]
    except (zlib.error, KeyError, IndexError):
        return None
    if len(raw) != size * kind.itemsize:
        return None
    return np.frombuffer(raw, dtype=kind).astype(np.int64)
