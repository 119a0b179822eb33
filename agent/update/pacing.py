"""How fast a download may be, and how slow: a limit shared by all connections, and a least rate of each answer.

I/O: none.
"""


class Allowance:
    """At most `bytes_per_second` on average over everything that asks it; None: no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    def delay(self, received_bytes: int, now: float) -> float:
        """Seconds to wait after `received_bytes` more, before anything else is read."""
        if self._rate is None:
            return 0.0
        self._free_at = max(self._free_at, now) + received_bytes / self._rate
        return self._free_at - now


class LeastRate:
    """One answer must bring `bytes_per_second` on average in each stretch of `seconds` that is waited for it."""

    def __init__(self, bytes_per_second: int, seconds: float) -> None:
        self._rate, self._seconds = bytes_per_second, seconds
        self._bytes, self._waited = 0, 0.0

    def missed(self, received_bytes: int, waited_seconds: float) -> bool:
        """True when a stretch ended with `received_bytes` more, and was too slow."""
        self._bytes += received_bytes
        self._waited += waited_seconds
        if self._waited < self._seconds:
            return False
        slow = self._bytes < self._rate * self._waited
        self._bytes, self._waited = 0, 0.0
        return slow
