"""Each device's metrics in the log, again and again, on a thread of its own: the caller's event loop stays free.

I/O: network, tasks.
"""

import logging
import threading
from collections.abc import Callable

from fleet.client import Fleet
from fleet.jobs import summaries
from shared.errors import FlotillaError

logger = logging.getLogger(__name__)


class Monitor:
    """Looks at once, and then every `every_seconds`, until it is ended."""

    def __init__(self, connect: Callable[[], Fleet], every_seconds: float) -> None:
        self._connect = connect
        self._every = every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="performance-monitoring", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Harmless to repeat."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with self._connect() as fleet:
            while not self._over.is_set():
                try:
                    self._look(fleet)
                except FlotillaError as error:  # the manager may be about to start again
                    logger.warning("performance not read error=%s detail=%s", error.code, error.detail)
                self._over.wait(self._every)

    def _look(self, fleet: Fleet) -> None:
        for device in fleet.devices.list():
            windows = fleet.devices.metrics(device["id"], limit=summaries.NEWEST)["items"]
            found = summaries.performance(device["id"], windows, fleet.drift.list(scope=f"device:{device['id']}"))
            logger.info("performance %s", " ".join(f"{key}={value}" for key, value in found.items()))
