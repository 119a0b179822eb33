"""A swap waits for its maintenance window: fetched, verified and tested before, also while the manager is away.

What was swapped in already is never held up, and neither is a model of which no version answers.

I/O: disk, tasks, clock.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agent.settings import UpdateSettings
from agent.update import reasons
from agent.update.holdups import Holdups
from agent.update.journal import Journal
from agent.update.lifecycle import Update
from agent.update.slot_disk import SlotDisk
from shared import windows
from shared.clock import Clock, rfc3339

_LOOK_SECONDS: Final = 5.0
_LOADING: Final = timedelta(seconds=60)
_FAR: Final = timedelta(days=windows.HORIZON_DAYS)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why not now, and for how long."""

    detail: str
    left: timedelta


class Opening:
    """One for all updates of a device."""

    def __init__(
        self, settings: UpdateSettings, *, disk: SlotDisk, journal: Journal, holdups: Holdups, clock: Clock
    ) -> None:
        self._settings = settings
        self._disk = disk
        self._journal = journal
        self._holdups = holdups
        self._clock = clock

    def closed(self, update: Update) -> Closed | None:
        """None when `update` may be swapped in now, as far as its window goes."""
        window = update.window
        if window is None or self._cannot_wait(update):
            return None
        now = max(self._clock.now(), self._journal.verified_at or self._clock.now())
        opens = windows.begin(window, now, needed=self.needed)
        if opens is None:
            return Closed(f"window {window.text()} does not open any more", _FAR)
        return None if opens <= now else Closed(f"window {window.text()}, next at {rfc3339(opens)}", opens - now)

    @property
    def needed(self) -> timedelta:
        """What loading, swap and probation may take."""
        return timedelta(seconds=self._settings.probation_limit_seconds) + _LOADING

    async def wait(
        self, update: Update, *, aside: Callable[[Update], bool], newest: Callable[[Update], Update]
    ) -> Update:
        """Returns when its window is open, or when `aside` says that another update pushes it aside: `update`, as the
        `newest` assignment of its release has it."""
        told = ""
        while not aside(update) and (closed := self.closed(update)) is not None:
            self._holdups.begin(update, reasons.WINDOW, closed.detail, tell=closed.detail != told)
            told = closed.detail
            await asyncio.sleep(
                min(_LOOK_SECONDS, self._settings.defer_limit_seconds / 20, closed.left.total_seconds())
            )
            update = newest(update)
        if told:
            self._holdups.end(update)
        return update

    def _cannot_wait(self, update: Update) -> bool:
        record = self._disk.read(update.model)
        return record.last_good is None or record.trial == update.slot
