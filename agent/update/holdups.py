"""What an update waits for at this moment: told to the fleet, shown to people, and over after a limit.

I/O: disk, tasks, clock.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from agent.serving.observations import Observation, Sample
from agent.settings import UpdateSettings
from agent.telemetry.host import Machine
from agent.update import conditions
from agent.update.lifecycle import Update
from agent.update.reasons import ConditionsError
from agent.update.standing import Waiting
from shared.clock import Clock, rfc3339

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 5.0
_LOOKS: Final = 20  # within the limit, at least
_BUSY: Final = "busy"  # of a sample: the queue was full


class Holdups:
    """One for all updates of a device."""

    def __init__(
        self,
        settings: UpdateSettings,
        *,
        machine: Machine,
        clock: Clock,
        tell: Callable[[Update, str, str], None],
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._clock = clock
        self._tell = tell
        self._waiting: dict[str, Waiting] = {}
        self._turned_away_at: float | None = None

    def waiting(self, model: str) -> Waiting | None:
        """Why the update of `model` does not go on; None when it does."""
        return self._waiting.get(model)

    def begin(self, update: Update, code: str, detail: str, *, tell: bool = True) -> None:
        """It waits from now on, or still, and `detail` is the newest word on it."""
        before = self._waiting.get(update.model)
        since = before.since if before is not None and before.code == code else self._clock.now()
        self._waiting[update.model] = Waiting(code, detail, since)
        if tell:
            logger.info("update waits release=%s code=%s detail=%s", update.release, code, detail)
            self._tell(update, code, detail)

    def end(self, update: Update) -> None:
        """It goes on."""
        self._waiting.pop(update.model, None)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Whether the endpoint keeps up."""
        if any(isinstance(found, Sample) and found.error == _BUSY for found in observations):
            self._turned_away_at = self._clock.monotonic()

    async def until_fit(self, update: Update) -> ConditionsError | None:
        """Returns when the machine may load a model, or when the wait was too long: then the error, unless the
        operator said to go on."""
        started, limit = self._clock.monotonic(), self._settings.defer_limit_seconds
        until = rfc3339(self._clock.now() + timedelta(seconds=limit))
        told = ""
        try:
            while (why := await self.hindrance(waiting=bool(told))) is not None:
                if self._clock.monotonic() - started >= limit:
                    return self._too_long(update, why)
                detail = f"{why}; until {until}, then: {self._settings.after_defer}"
                kind = why.partition(",")[0].lstrip("0123456789")  # not again for each degree
                self.begin(update, ConditionsError.code, detail, tell=kind != told)
                told = kind
                await asyncio.sleep(min(_LOOK_SECONDS, limit / _LOOKS))
        finally:
            self.end(update)
        return None

    async def hindrance(self, *, waiting: bool = False) -> str | None:
        """Why the machine has no strength to spare at this moment; None: it has."""
        strain = await asyncio.to_thread(self._machine.strain)
        since = None if self._turned_away_at is None else self._clock.monotonic() - self._turned_away_at
        return conditions.hindrance(strain, self._settings, turned_away_seconds=since, waiting=waiting)

    def _too_long(self, update: Update, why: str) -> ConditionsError | None:
        limit = self._settings.defer_limit_seconds
        if self._settings.after_defer == "go-on":
            logger.warning("update goes on nevertheless release=%s after_s=%g detail=%s", update.release, limit, why)
            return None
        return ConditionsError(f"{why}, for {limit:g} s")
