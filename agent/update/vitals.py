"""How each version on this device does: counted as observations come, remembered over restarts.

I/O: disk, tasks.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.serving.observations import Feedback, Observation, Sample, WorkerDied
from agent.update.journal import Journal
from agent.update.probation import Performance, Tally
from shared.errors import UnavailableError

logger = logging.getLogger(__name__)

REMEMBER_SECONDS: Final = 15.0


class Vitals:
    """One tally for each version that was ever observed since the start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._saved: dict[tuple[str, str], Performance] = {}

    def observe(self, observations: Sequence[Observation]) -> None:
        """Count them. Cheap: called for every batch that the endpoint reports."""
        for found in observations:
            tally = self._tally(found.model, found.version)
            match found:
                case Sample():
                    tally.answered(found.latency_ms, found.error)
                case Feedback():
                    tally.labelled(correct=found.correct)
                case WorkerDied():
                    tally.crashed(found.exit)

    def start_over(self, model: str, version: str) -> None:
        """A trial begins: what the version did earlier does not count."""
        self._tallies[model, version] = Tally()
        self.remember(model, version)

    def performance(self, model: str, version: str) -> Performance:
        """Counts up to now, with those of before the restart."""
        return self._tally(model, version).performance

    def remember(self, model: str, version: str) -> None:
        """Make the counts durable, for the comparison with the next version. Nothing when they did not change."""
        found = self.performance(model, version)
        if self._saved.get((model, version)) != found:
            self._journal.save_performance(model, version, found)
            self._saved[model, version] = found

    async def keep(self, serving: Callable[[], Mapping[str, str]]) -> None:
        """Until cancelled: remember the versions that serve (`serving` is asked each time)."""
        while True:
            await asyncio.sleep(REMEMBER_SECONDS)
            for model, version in serving().items():
                try:
                    self.remember(model, version)
                except UnavailableError as error:
                    logger.warning("not remembered yet code=%s detail=%s", error.code, error.detail)

    def _tally(self, model: str, version: str) -> Tally:
        key = (model, version)
        if key not in self._tallies:
            self._tallies[key] = Tally(self._journal.performance(model, version))
        return self._tallies[key]
