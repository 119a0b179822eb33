"""A token bucket for each device: nobody may drown the others.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

#: So many names are kept without a look at which of them still matter.
FEW: Final = 1024


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """`rate` takes a second on average, `burst` at once. Times are monotonic seconds."""

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: dict[str, _Bucket] = {}
        self._limit = FEW

    def take(self, name: str, now: float) -> bool:
        """True if `name` may do one more thing at `now`."""
        if len(self._buckets) >= self._limit:
            self._forget_full(now)
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def _forget_full(self, now: float) -> None:
        """Drop buckets that are full again: they say nothing."""
        full = self._burst / self._rate
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket.at < full}
        self._limit = max(FEW, 2 * len(self._buckets))
