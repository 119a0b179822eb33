"""Which version answers: at the swap, at the commit, and on the way back.

The slot record is durable before the route follows, so that a start after a power cut finds what was
meant. Every method may be called again. `upkeep` does the same at boot and when something breaks.

    swap       record (one try used up) -> load -> route; or, where memory holds one version only: exchange
    commit     record -> journal (floor, good) -> old version unloaded
    retire     route the last good one -> record -> unload -> remember why -> clear
    back       load the other good one -> route -> record -> unload

I/O: disk, tasks.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.update import lifecycle, reasons, slots
from agent.update.answering import Answering
from agent.update.journal import Journal
from agent.update.lifecycle import SlotName, Update
from agent.update.slot_disk import SLOTS, SlotDisk
from shared.clock import Clock
from shared.errors import RefusedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WentBack:
    """A change by hand: the version left, and the one that serves now."""

    model: str
    left: str
    version: str


class Switch:
    """Changes slot records and routes. Whoever else does holds `lock` meanwhile."""

    def __init__(
        self,
        *,
        disk: SlotDisk,
        answering: Answering,
        journal: Journal,
        clock: Clock,
        tries: int,
        checkpoint: Callable[[str], None],
    ) -> None:
        self._disk = disk
        self._answering = answering
        self._journal = journal
        self._clock = clock
        self._tries = tries
        self._checkpoint = checkpoint
        self.lock = asyncio.Lock()
        self._spent: dict[str, tuple[str, str]] = {}  # model -> why its trial must not go on

    def spent(self, model: str) -> tuple[str, str] | None:
        """Code and detail when the trial of `model` must end now."""
        return self._spent.get(model)

    def give_up(self, model: str, code: str, detail: str) -> None:
        """Whoever watches the trial of `model` shall end it with this reason."""
        self._spent.setdefault(model, (code, detail))

    def write(self, record: slots.Record, before: slots.Record) -> None:
        """Make the record durable, with the time of what changed."""
        self._disk.write(slots.stamped(record, before, self._clock.now()))

    # one update

    async def clear(self, update: Update, slot: SlotName) -> None:
        """Empty the idle slot for what comes. A good version in it is kept aside, where so many shall be kept.

        Raises:
            UpdateBusyError: it serves: somebody changed slots by hand in this very moment.
        """
        async with self.lock:
            record = self._disk.read(update.model)
            if slot == record.last_good:
                raise reasons.UpdateBusyError(f"slot {slot} of {update.model} serves since a moment ago")
            leaving, held = record[slot].version, record[slot]
            self.write(slots.retired(record, slot), record)
            self._checkpoint("clear:recorded")
            if leaving is not None and leaving != update.version:
                await self._answering.unload(update.model, leaving)
            if update.keep_versions is not None and held.state is slots.State.GOOD and held.manifest is not None:
                aside = max(0, update.keep_versions - len(SLOTS))
                self._disk.put_away(update.model, slot, held.manifest, limit=aside, spare=update.manifest)
            self._disk.clear(update.model, slot)

    async def stage(self, update: Update, slot: SlotName) -> None:
        """The slot holds the release, every byte checked.

        Raises:
            DamagedSlotError: it does not.
        """
        async with self.lock:
            manifest = await asyncio.to_thread(self._disk.verified, update.model, slot, update.manifest)
            record = self._disk.read(update.model)
            staged = slots.staged(
                record, slot, version=update.version, manifest=update.manifest, counter=manifest.counter
            )
            self.write(staged, record)

    async def tested(self, update: Update, slot: SlotName, found: slots.Measured) -> None:
        """The self-test passed."""
        async with self.lock:
            record = self._disk.read(update.model)
            self.write(slots.tested(record, slot, found), record)

    async def swap(self, update: Update, slot: SlotName, *, alone: bool = False) -> None:
        """The slot answers from now on, on probation; with `alone` the one before is ended first.

        Raises:
            LoadError, DamagedSlotError: it cannot.
        """
        async with self.lock:
            record = self._disk.read(update.model)
            if record.trial != slot:
                before, record = record, slots.trial_begun(record, slot, tries=self._tries, alone=alone)
                self.write(record, before)
                self._checkpoint("swap:recorded")
            if record.alone:
                await self._answering.exchange(record, slot)
                self._checkpoint("swap:exchanged")
                return
            file = await self._answering.load(record, slot)
            self._checkpoint("swap:loaded")
            await self._answering.route(file)

    async def stand_down(self, model: str) -> None:
        """What serves is ended, to make room, until `stand_up`; requests wait meanwhile."""
        async with self.lock:
            if (version := self._answering.version(model)) is not None:
                await self._answering.pause(model, version)
                self._checkpoint("stand-down")

    async def stand_up(self, model: str) -> None:
        """The last good version serves again. One that does not load is `upkeep`'s business."""
        async with self.lock:
            record = self._disk.read(model)
            if record.last_good is None:
                return
            try:
                await self._answering.serve(record, record.last_good)
            except RefusedError as error:
                logger.error("does not serve again yet model=%s detail=%s", model, error.detail)

    async def commit(self, update: Update, slot: SlotName) -> None:
        """The slot is good for ever; only now the floor rises and the old version's memory is freed."""
        async with self.lock:
            record = self._disk.read(update.model)
            manifest = self._disk.manifest(update.model, slot, update.manifest)
            self.write(slots.committed(record, minimum_counter=manifest.minimum_counter), record)
            self._checkpoint("commit:recorded")
            self._journal.committed(update, minimum_counter=manifest.minimum_counter)
            old = record[slots.other(slot)].version
            if old is not None and old != update.version:
                await self._answering.unload(update.model, old)

    def committed(self, update: Update) -> bool:
        """True when the record says so already, whatever the journal says."""
        return update.slot is not None and self._disk.read(update.model).last_good == update.slot

    async def retire(self, update: Update) -> None:
        """The last good version answers and nothing is left of the release that did not make it."""
        async with self.lock:
            record = self._disk.read(update.model)
            await self._route_last_good(record, update)
            self._checkpoint("retire:routed")
            if (slot := update.slot) is not None and _its_slot(record, update, slot):
                self.write(slots.retired(record, slot), record)
                self._checkpoint("retire:recorded")
                await self._answering.unload(update.model, update.version)
                self._disk.clear(update.model, slot)
            self._spent.pop(update.model, None)
            if update.reason in reasons.PROVEN_BAD:
                self._journal.mark_bad(update.manifest, update.reason or "", update.detail or "")

    async def _route_last_good(self, record: slots.Record, update: Update) -> None:
        if record.last_good is None:
            return
        alone = record.alone and record.trial == update.slot
        try:
            if alone:
                await self._answering.exchange(record, record.last_good)
            else:
                await self._answering.serve(record, record.last_good)
        except RefusedError as error:  # `upkeep` looks for another one
            logger.error("last good version does not load model=%s detail=%s", record.model, error.detail)

    async def back(self, model: str | None, busy: Callable[[str], bool]) -> WentBack:
        """By hand: the other good slot of `model` answers; None: of the first model that has one.

        Raises:
            NoOtherSlotError: there is none.
            UpdateBusyError: an update is at work on it.
            LoadError, DamagedSlotError: it cannot be loaded; nothing changed.
        """
        async with self.lock:
            record = self._to_go_back(model)
            if busy(record.model):
                raise reasons.UpdateBusyError(f"an update of {record.model} is at work on its slots")
            switched = slots.switched(record)
            if (why := self._why_not(record)) or switched is None:
                raise reasons.NoOtherSlotError(why)
            return await self.go_back(record, switched)

    async def go_back(self, record: slots.Record, switched: slots.Record) -> WentBack:
        """From `record` to `switched`, whose active slot is loaded before anything changes. Holding `lock`.

        Raises:
            LoadError, DamagedSlotError: it cannot be loaded; nothing changed.
        """
        assert switched.active is not None  # noqa: S101 - whoever switched made it so
        model, left = record.model, record[slots.other(switched.active)]
        version = await self._answering.serve(switched, switched.active, verify=True)
        self._checkpoint("back:routed")
        self.write(switched, record)
        self._checkpoint("back:recorded")
        self._journal.went_back(model, switched[switched.active].manifest or "")
        await self._answering.unload(model, left.version or "")
        return WentBack(model, left.version or "", version)

    def _to_go_back(self, model: str | None) -> slots.Record:
        models = self._disk.models()
        if model is not None:
            if model not in models:
                raise reasons.NoOtherSlotError(f"no model {model!r} on this device")
            return self._disk.read(model)
        found = [self._disk.read(name) for name in models]
        able = [record for record in found if not self._why_not(record)]
        if len(able) > 1:
            names = ", ".join(record.model for record in able)
            raise reasons.NoOtherSlotError(
                f"several models could go back: {names}", remedy="name one: flotilla-agent rollback MODEL"
            )
        if not able:
            why = "; ".join(f"{record.model}: {self._why_not(record)}" for record in found)
            raise reasons.NoOtherSlotError(why or "no model has arrived on this device yet")
        return able[0]

    def _why_not(self, record: slots.Record) -> str:
        """Why `record` has nothing to go back to; empty when it has."""
        if record.last_good is None:
            return "no version was committed yet"
        if record.trial is not None:
            return "a trial is under way"
        beside = record[slots.other(record.last_good)]
        if beside.state is not slots.State.GOOD:
            return f"{record[record.last_good].version} is the only good version (the other slot is {beside.state})"
        if beside.counter < record.minimum_counter:
            return f"{beside.version} is older than what may serve here since {record[record.last_good].version}"
        if found := self._journal.bad(beside.manifest or ""):
            return f"{beside.version} was left because of {found[0]}: {found[1]}"
        return ""


def _its_slot(record: slots.Record, update: Update, slot: SlotName) -> bool:
    """False when the slot still holds (or holds again) something good that must stay."""
    held = record[slot]
    if record.last_good == slot:
        return False
    untouched_good = held.state is slots.State.GOOD and update.state is lifecycle.State.CANCELLING
    return held.manifest in {None, update.manifest} and not untouched_good
