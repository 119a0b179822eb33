"""The one child process that runs tegrastats, and the newest line that it said.

It is started when somebody first asks, writes one line in a while into a pipe that holds far more, and is ended when it
says nothing any more or too much. A child that died is tried again after a pause.

I/O: process, disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from agent.telemetry import tegrastats
from shared.messages import HostMetrics

if TYPE_CHECKING:
    from datetime import timedelta

    from shared.clock import Clock

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 300.0
#: Intervals without a line before the child is ended.
SILENT: Final = 3
MOST_BYTES: Final = 64 * 1024  # of one look: more is no tegrastats
END_SECONDS: Final = 2.0


class Child:
    """At most one process at a time. All calls come from one thread, none of them waits for the child."""

    def __init__(self, every: timedelta, *, clock: Clock, program: str | None = None) -> None:
        self._every, self._clock = every.total_seconds(), clock
        self._program = program or shutil.which("tegrastats")
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._newest = HostMetrics()
        self._heard = 0.0  # monotonic: the last line, or the start
        self._again = float("-inf")  # not started before

    def read(self) -> HostMetrics:
        """What it last said; nothing on a machine without tegrastats, or while there is no line yet."""
        if self._program is None:
            return HostMetrics()
        if self._process is None:
            self._start(self._program)
        else:
            self._listen(self._process)
        return self._newest

    def close(self) -> None:
        """End the child. A second call does nothing."""
        process, self._process, self._rest, self._newest = self._process, None, b"", HostMetrics()
        if process is None:
            return
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)

    def _start(self, program: str) -> None:
        now = self._clock.monotonic()
        if now < self._again:
            return
        self._again = now + PAUSE_SECONDS
        try:
            process = subprocess.Popen(
                [program, "--interval", str(max(1, round(self._every * 1000)))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            logger.warning("tegrastats does not start error=%s", error)
            return
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
        self._process, self._heard = process, now

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        said = _available(process)
        now, lines = self._clock.monotonic(), (self._rest + said).split(b"\n")
        self._rest = lines.pop()
        if lines:
            self._newest, self._heard = tegrastats.parse(lines[-1].decode(errors="replace")), now
        silent = now - self._heard > SILENT * self._every
        if process.poll() is not None or silent or len(said) >= MOST_BYTES or len(self._rest) > tegrastats.MAX_LINE:
            logger.warning("tegrastats ended status=%s silent=%s", process.poll(), silent)
            self.close()


def _available(process: subprocess.Popen[bytes]) -> bytes:
    if process.stdout is None:
        return b""
    try:
        return os.read(process.stdout.fileno(), MOST_BYTES)
    except OSError:  # nothing there yet, or gone
        return b""
