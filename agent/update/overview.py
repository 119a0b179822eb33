"""What people are told of the slots: gathered from the record, the endpoint, upkeep and what an update waits for.

I/O: disk, clock.
"""

import logging
from collections.abc import Mapping
from datetime import datetime

from agent.update import reasons
from agent.update.answering import Answering
from agent.update.holdups import Holdups
from agent.update.journal import Journal
from agent.update.slot_disk import SLOTS, SlotDisk
from agent.update.slots import Record
from agent.update.standing import Standing, Trouble, standing
from agent.update.upkeep import Upkeep
from shared.clock import Clock
from shared.errors import BrokenError
from shared.messages import SlotState

logger = logging.getLogger(__name__)


class Overview:
    """Asked by the daemon; changes nothing."""

    def __init__(
        self,
        *,
        disk: SlotDisk,
        answering: Answering,
        upkeep: Upkeep,
        journal: Journal,
        holdups: Holdups,
        clock: Clock,
    ) -> None:
        self._disk = disk
        self._answering = answering
        self._upkeep = upkeep
        self._journal = journal
        self._holdups = holdups
        self._clock = clock
        self._stands_in: dict[str, datetime] = {}  # model -> since when the CPU does

    def slots(self) -> tuple[SlotState, ...]:
        """Both slots of every model."""
        found: list[SlotState] = []
        for model in self._disk.models():
            try:
                record = self._disk.read(model)
            except BrokenError as error:
                logger.error("slots unknown model=%s code=%s detail=%s", model, error.code, error.detail)
                continue
            found += [
                SlotState(slot=name, state=record[name].state, model=model, version=record[name].version)
                for name in SLOTS
            ]
        return tuple(found)

    def standing(self) -> tuple[Standing, ...]:
        """What serves each model, and why."""
        return tuple(self._standing(model) for model in self._disk.models())

    def _standing(self, model: str) -> Standing:
        try:
            record = self._disk.read(model)
        except BrokenError:
            record = Record(model)
        return standing(
            record,
            serving=self._answering.version(model),
            trouble=self._trouble(model),
            current=self._journal.update("current"),
            waiting=self._holdups.waiting(model),
            last_end=self._journal.ending(model),
        )

    def troubles(self) -> Mapping[str, str]:
        """Model -> why it is not served as it should be, with its code."""
        found = {model: self._trouble(model) for model in self._disk.models()}
        return {model: _in_words(trouble) for model, trouble in found.items() if trouble is not None}

    def _trouble(self, model: str) -> Trouble | None:
        """Of upkeep; else that the CPU stands in."""
        found, why = self._upkeep.trouble(model), self._answering.stand_in(model)
        if found is not None or why is None:
            self._stands_in.pop(model, None)
            return found
        since = self._stands_in.setdefault(model, self._clock.now())
        return Trouble(reasons.STAND_IN, why, since, safe_mode=False)


def _in_words(trouble: Trouble) -> str:
    code = f"{reasons.SafeModeError.code}: " if trouble.safe_mode else ""
    return f"{code}{trouble.code}: {trouble.detail}"
