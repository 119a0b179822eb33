"""Keeps the processors from falling asleep while requests come; an idle device sleeps as it likes.

A request wakes four processes one after the other. A processor that has gone to sleep, or whose virtual machine has,
takes tens of microseconds to come back, each time. The kernel can be asked to stay ready: /dev/cpu_dma_latency (its
power management quality of service), asked for with a request and taken back a moment after the last one.

I/O: disk, tasks.
"""

import asyncio
import contextlib
import os
import struct
from typing import Final

_DEVICE: Final = "/dev/cpu_dma_latency"
_READY: Final = struct.pack("=i", 0)  # microseconds that waking up may take
_ANY: Final = struct.pack("=i", 2_000_000_000)  # the kernel's word for no wish
_HOLD_SECONDS: Final = 0.002  # after a request, for its answer and the client's next one


def possible() -> bool:
    """Whether this process may ask."""
    return os.access(_DEVICE, os.W_OK)


class Wakefulness:
    """`touch` it with every request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, wanted: bool) -> None:
        self._loop = loop
        self._awake = False
        self._touched = 0.0
        self._device = -1
        if wanted:
            with contextlib.suppress(OSError):
                self._device = os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC)

    def touch(self, now: float) -> None:
        """A request came at `now` (time.monotonic)."""
        self._touched = now
        if not self._awake and self._device >= 0:
            self._awake = True
            self._ask(_READY)
            self._loop.call_later(_HOLD_SECONDS, self._check)

    def _check(self) -> None:
        left = self._touched + _HOLD_SECONDS - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._check)
            return
        self._awake = False
        self._ask(_ANY)

    def _ask(self, wish: bytes) -> None:
        with contextlib.suppress(OSError):  # no more than a wish
            os.write(self._device, wish)
