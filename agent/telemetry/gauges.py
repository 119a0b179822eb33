"""The machine by all sources that there are: the kernel's files first, then NVML, then tegrastats for what is missing.

I/O: disk, process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.telemetry import filling, host
from agent.telemetry.nvml import Nvml
from agent.telemetry.tegrastats_child import Child

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from shared.clock import Clock
    from shared.messages import HostMetrics


class Gauges:
    """Asked once for each look at the machine. tegrastats runs only while something is missing."""

    def __init__(
        self, every: timedelta, *, clock: Clock, root: Path = host.ROOT, nvml: Nvml | None = None,
        tegrastats: Child | None = None,
    ) -> None:  # fmt: skip
        self._root, self._nvml = root, nvml or Nvml()
        self._tegrastats = tegrastats or Child(every, clock=clock)

    def measure(self, folder: Path) -> HostMetrics:
        """The host now, as `host.measure` tells it, and more where others know more."""
        found = filling.filled(host.measure(folder, self._root), self._nvml.read())
        if filling.lacks(found):
            found = filling.filled(found, self._tegrastats.read())
        return found

    def close(self) -> None:
        """End the child, if there is one."""
        self._tegrastats.close()
