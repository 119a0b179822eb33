"""Which version answers: at boot, at the swap, at the commit, and on the way back.

The slot record is durable before the route follows, so that a start after a power cut finds what was
meant. Every method may be called again.

    boot       last good slot, then the slot on trial if it has tries left
    swap       record (one try used up) -> load -> route
    commit     record -> floor -> old version unloaded
    retire     route the last good one -> record -> unload -> remember why -> clear

I/O: disk, tasks.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from agent.serving.supervisor import ModelFile, Serving
from agent.update import lifecycle, reasons, slots
from agent.update.journal import Journal
from agent.update.lifecycle import SlotName, Update
from agent.update.slot_disk import SlotDisk
from shared.errors import FlotillaError, RefusedError

logger = logging.getLogger(__name__)


class Switch:
    """The only part that touches slot records and routes."""

    def __init__(
        self,
        *,
        disk: SlotDisk,
        serving: Serving,
        journal: Journal,
        tries: int,
        providers: Sequence[str] | None,
        checkpoint: Callable[[str], None],
    ) -> None:
        self._disk = disk
        self._serving = serving
        self._journal = journal
        self._tries = tries
        self._providers = providers
        self._checkpoint = checkpoint
        self._lock = asyncio.Lock()
        self._spent: dict[str, tuple[str, str]] = {}  # model -> why its trial must not go on

    def spent(self, model: str) -> tuple[str, str] | None:
        """Code and detail when the trial of `model` must end now."""
        return self._spent.get(model)

    def give_up(self, model: str, code: str, detail: str) -> None:
        """Whoever watches the trial of `model` shall end it with this reason."""
        self._spent[model] = (code, detail)

    # boot

    async def boot(self, current: Update | None) -> None:
        """Get every model's right version serving. A model that cannot be served is logged and left."""
        for model in self._disk.models():
            try:
                await self._boot(model, current)
            except FlotillaError as error:
                logger.error("model not serving model=%s code=%s detail=%s", model, error.code, error.detail)

    async def _boot(self, model: str, current: Update | None) -> None:
        found = self._disk.read(model)
        record = self._settled(found, current)
        if record != found:
            try:
                self._disk.write(record)
            except OSError as error:  # a try that is not counted is not made
                self.give_up(model, reasons.DiskError.code, f"start not recorded: {error}")
        self._checkpoint("boot:recorded")
        record = await self._boot_last_good(record)
        if record.trial is not None and self.spent(model) is None and not _leaving(record, current):
            try:
                await self._serve(record, record.trial, verify=True)
            except RefusedError as error:
                self.give_up(model, error.code, error.detail)

    def _settled(self, record: slots.Record, current: Update | None) -> slots.Record:
        """The record with this start's try used up, or without a trial that nobody carries any more."""
        if record.trial is None or _leaving(record, current):
            return record
        if current is None or (current.model, current.slot) != (record.model, record.trial):
            logger.warning("trial without an update dropped model=%s slot=%s", record.model, record.trial)
            return slots.retired(record, record.trial)
        if record.tries_left > 0:
            return slots.trial_started(record)
        self.give_up(record.model, reasons.PROBATION_CRASH, f"not committed after {self._tries} starts")
        return record

    async def _boot_last_good(self, record: slots.Record) -> slots.Record:
        for _ in ("last good", "the one beside it"):
            if record.last_good is None:
                break
            try:
                await self._serve(record, record.last_good, verify=True)
                break
            except reasons.DamagedSlotError as error:
                logger.error("slot damaged model=%s detail=%s", record.model, error.detail)
                record = slots.lost(record, record.last_good)
                with contextlib.suppress(OSError):  # found again at the next start
                    self._disk.write(record)
        return record

    async def _serve(self, record: slots.Record, slot: SlotName, *, verify: bool = False) -> str:
        file = await self._file(record, slot, verify=verify)
        took = await self._serving.load(file)
        await self._serving.route(file.model, file.version)
        logger.info("serving model=%s version=%s slot=%s load_s=%.3f", file.model, file.version, slot, took)
        return file.version

    async def _file(self, record: slots.Record, slot: SlotName, *, verify: bool) -> ModelFile:
        read = self._disk.verified if verify else self._disk.manifest
        manifest = await asyncio.to_thread(read, record.model, slot, record[slot].manifest)
        accepted = manifest.runtime.providers
        return ModelFile(
            model=manifest.model,
            version=manifest.version,
            slot=slot,
            path=self._disk.file(manifest.model, slot, "model"),
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            providers=tuple(name for name in (self._providers or accepted) if name in accepted),
        )

    # one update

    async def clear(self, update: Update, slot: SlotName) -> None:
        """Empty the idle slot for what comes."""
        async with self._lock:
            record = self._disk.read(update.model)
            leaving = record[slot].version
            self._disk.write(slots.retired(record, slot))
            self._checkpoint("clear:recorded")
            if leaving is not None and leaving != update.version:
                await self._serving.unload(update.model, leaving)
            self._disk.clear(update.model, slot)

    async def stage(self, update: Update, slot: SlotName) -> None:
        """The slot holds the release, every byte checked.

        Raises:
            DamagedSlotError: it does not.
        """
        async with self._lock:
            manifest = await asyncio.to_thread(self._disk.verified, update.model, slot, update.manifest)
            record = self._disk.read(update.model)
            self._disk.write(
                slots.staged(record, slot, version=update.version, manifest=update.manifest, counter=manifest.counter)
            )

    async def tested(self, update: Update, slot: SlotName) -> None:
        """The self-test passed."""
        async with self._lock:
            self._disk.write(slots.tested(self._disk.read(update.model), slot))

    async def swap(self, update: Update, slot: SlotName) -> None:
        """The slot answers from now on, on probation.

        Raises:
            LoadError, DamagedSlotError: it cannot.
        """
        async with self._lock:
            record = self._disk.read(update.model)
            if record.trial != slot:
                record = slots.trial_begun(record, slot, tries=self._tries)
                self._disk.write(record)
                self._checkpoint("swap:recorded")
            file = await self._file(record, slot, verify=False)
            await self._serving.load(file)
            self._checkpoint("swap:loaded")
            await self._serving.route(file.model, file.version)

    async def commit(self, update: Update, slot: SlotName) -> None:
        """The slot is good for ever; only now the floor rises and the old version's memory is freed."""
        async with self._lock:
            record = self._disk.read(update.model)
            manifest = self._disk.manifest(update.model, slot, update.manifest)
            self._disk.write(slots.committed(record, minimum_counter=manifest.minimum_counter))
            self._checkpoint("commit:recorded")
            self._journal.raise_floor(update.model, manifest.minimum_counter)
            self._journal.forget_bad(update.manifest)
            old = record[slots.other(slot)].version
            if old is not None and old != update.version:
                await self._serving.unload(update.model, old)

    def committed(self, update: Update) -> bool:
        """True when the record says so already, whatever the journal says."""
        return update.slot is not None and self._disk.read(update.model).last_good == update.slot

    async def retire(self, update: Update) -> None:
        """The last good version answers and nothing is left of the release that did not make it."""
        async with self._lock:
            record = self._disk.read(update.model)
            await self._route_last_good(record)
            self._checkpoint("retire:routed")
            if (slot := update.slot) is not None and _its_slot(record, update, slot):
                self._disk.write(slots.retired(record, slot))
                self._checkpoint("retire:recorded")
                await self._serving.unload(update.model, update.version)
                self._disk.clear(update.model, slot)
            self._spent.pop(update.model, None)
            if update.reason in reasons.PROVEN_BAD:
                self._journal.mark_bad(update.manifest, update.reason or "", update.detail or "")

    async def _route_last_good(self, record: slots.Record) -> None:
        if record.last_good is None:
            return
        try:
            await self._serve(record, record.last_good)
        except RefusedError as error:
            logger.error("last good version does not load model=%s detail=%s", record.model, error.detail)

    async def back(self) -> tuple[str, str, str]:
        """By hand: the other good slot answers. Model, version left, version gone to.

        Raises:
            NoOtherSlotError: no model has one.
            LoadError, DamagedSlotError: it cannot be loaded; nothing changed.
        """
        async with self._lock:
            for model in self._disk.models():
                record = self._disk.read(model)
                if (switched := slots.switched(record)) is None or switched.active is None:
                    continue
                version = await self._serve(switched, switched.active, verify=True)
                self._disk.write(switched)
                left = record[slots.other(switched.active)].version or ""
                await self._serving.unload(model, left)
                return model, left, version
        raise reasons.NoOtherSlotError("no model has a second good version on this device")


def _leaving(record: slots.Record, current: Update | None) -> bool:
    return current is not None and current.model == record.model and current.state in lifecycle.LEAVING


def _its_slot(record: slots.Record, update: Update, slot: SlotName) -> bool:
    """False when the slot still holds (or holds again) something good that must stay."""
    held = record[slot]
    if record.last_good == slot:
        return False
    untouched_good = held.state is slots.State.GOOD and update.state is lifecycle.State.CANCELLING
    return held.manifest in {None, update.manifest} and not untouched_good
