"""How a worker waits for its next request: awake while one follows the other, asleep otherwise.

A client that asks again as soon as it has its answer comes back within a tenth of a millisecond. A process that slept
meanwhile comes back with cold caches: what takes 7 us then takes 25. So while requests come that quickly, and there
is another processor for everybody else, the socket is looked at again and again for a moment before sleeping; a
camera with 30 pictures per second never causes it. Python 3.10 syntax: runs under the worker's interpreter.

I/O: disk, network, clock.
"""

import os
import select
import time
from typing import Optional

_QUICK = 250_000  # ns between an answer and the next request, on average, up to which it pays to stay awake
_LOOK = 400_000  # ns to stay awake for one request
_UNBROKEN = 50_000_000  # ns; then once asleep, as the kernel ends the privilege of who never is (worker_scheduling)
_LONGEST = 1_000_000  # ns; longer waits count as so long


class Wait:
    """Waits on `poll`; learns how quickly requests follow each other."""

    def __init__(self, poll: "select.poll", *, awake: bool) -> None:
        self._poll = poll
        self._awake = awake and len(os.sched_getaffinity(0)) > 1
        self._gap = _LONGEST
        self._slept = 0

    def events(self, timeout_ms: Optional[int]) -> "list[tuple[int, int]]":
        """What `poll` finds; nothing after so many milliseconds (None: wait for ever)."""
        began = time.perf_counter_ns()
        if self._awake and self._gap < _QUICK and began - self._slept < _UNBROKEN:
            now = began
            while now - began < _LOOK:
                found = self._poll.poll(0)
                now = time.perf_counter_ns()
                if found:
                    self._learn(now - began)
                    return found
        found = self._poll.poll(timeout_ms)
        self._slept = time.perf_counter_ns()
        self._learn(self._slept - began)
        return found

    def _learn(self, gap: int) -> None:
        self._gap += (min(gap, _LONGEST) - self._gap) // 4
