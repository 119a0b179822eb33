"""A thread that owns one network connection and takes its commands from an event loop.

    event loop --submit(command)--> thread: runs it between two looks at the socket
    event loop <--post(call, ...)-- thread: everything it has to say
    event loop: `stalled` (the watchdog), `ended` (a future, set exactly once)

I/O: network, tasks, clock, chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0


def full_jitter(failures: int) -> float:
    """Seconds until the next try: a fleet that lost its broker must not come back at one instant."""
    ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 10))
    return random.uniform(0, ceiling)  # noqa: S311 (spreading load, not a secret)


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a connection is over."""

    reason: str
    ready_seconds: float | None = None  # how long it could be used; None: never
    wrong_protocol: bool = False


class LinkThread(ABC):
    """Subclasses give `_serve` (in the thread) and `_settle_others` (in the event loop, at the end)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, stall_seconds: float) -> None:
        self._loop, self._stall_seconds = loop, stall_seconds
        self._commands: deque[Callable[[], None]] = deque()
        self.awake, self._waker = socket.socketpair()
        self.awake.setblocking(False)
        self._waker.setblocking(False)
        self._over: Ended | None = None
        self._thread = threading.Thread(target=self._main, name="link", daemon=True)
        self._beat = time.monotonic()
        self.ended: asyncio.Future[Ended] = loop.create_future()

    @abstractmethod
    def _serve(self) -> None:
        """The connection from begin to end, in the thread; `_pulse` at each turn."""

    @abstractmethod
    def _close(self) -> None:
        """Close the socket, in the thread."""

    @abstractmethod
    def _settle_others(self, over: Ended) -> None:
        """Tell everybody who waits for this connection that it is over, in the event loop."""

    # -- for the event loop

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    @property
    def stalled(self) -> bool:
        """True when the thread died or hangs without having said so."""
        late = time.monotonic() - self._beat > self._stall_seconds
        died = not self._thread.is_alive() and not self.over  # else it has said so, and we shall hear
        return not self.ended.done() and (late or died)

    def abandon(self, reason: str) -> None:
        """Give up a thread that no longer answers."""
        self._end(Ended(reason))
        self._settle()

    def submit(self, command: Callable[[], None]) -> None:
        """Have `command` run in the thread; from any thread."""
        self._commands.append(command)
        if len(self._commands) > 1:
            return  # whoever handed over the first wakes the thread, and it takes all
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: the connection has ended
            self._waker.send(b"\0")

    # -- for the thread

    @property
    def over(self) -> bool:
        """True once the end was decided."""
        return self._over is not None

    def _main(self) -> None:
        try:
            self._serve()
        except (OSError, ValueError) as error:  # ValueError: TLS host name, malformed packet
            self._end(Ended(f"{type(error).__name__}: {error}"))
        except Exception:
            logger.exception("network thread failed")
            self._end(Ended("the network thread failed"))
        finally:
            self._end(Ended("the connection ended"))
            self._close()
            self.awake.close()
            self._waker.close()
            self._post(self._settle)

    def _pulse(self) -> float:
        self._beat = time.monotonic()
        return self._beat

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.awake.recv(4096)
        while self._commands:
            self._commands.popleft()()

    def _end(self, over: Ended) -> None:
        self._over = self._over or over

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the event loop is gone, and with it everybody who waits
            self._end(Ended("the program ends"))

    def _settle(self) -> None:
        over = self._over or Ended("the connection ended")
        self._settle_others(over)
        if not self.ended.done():
            self.ended.set_result(over)
