"""Every model answers: at boot, and again when something broke that no update is at work on.

    boot       record (rebuilt when damaged) -> last good slot, or the other one -> the slot on trial
    crash loop the other good slot, once; what was left is remembered as bad and not gone back to
    trouble    what should serve does not: tried again, ever later; meanwhile the other good slot serves, or
               nothing does (safe mode): applications are told why, the manager too, and a new release is welcome

I/O: disk, tasks.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from agent.serving.observations import Observation, WorkerDied
from agent.update import crash_loop, lifecycle, reasons, slots
from agent.update.answering import Answering
from agent.update.fetch import Backoff
from agent.update.journal import Journal
from agent.update.lifecycle import Draft, SlotName, Update
from agent.update.rebuilding import rebuilt
from agent.update.slot_disk import SLOTS, SlotDisk
from agent.update.standing import Trouble
from agent.update.switch import Switch
from shared.clock import Clock
from shared.errors import FlotillaError, RefusedError
from shared.messages import Phase

logger = logging.getLogger(__name__)

RETRIES: Final = Backoff(1.0, 120.0)


class Upkeep:
    """Keeps models served. Changes slots under the lock of `switch`."""

    def __init__(
        self,
        *,
        disk: SlotDisk,
        answering: Answering,
        journal: Journal,
        switch: Switch,
        report: Callable[[Draft], None],
        clock: Clock,
        checkpoint: Callable[[str], None],
        retries: Backoff = RETRIES,
    ) -> None:
        self._disk = disk
        self._answering = answering
        self._journal = journal
        self._switch = switch
        self._report = report
        self._clock = clock
        self._checkpoint = checkpoint
        self._retries = retries
        self._wake = asyncio.Event()
        self._troubles: dict[str, Trouble] = {}
        self._suspects: set[str] = set()
        self._deaths: dict[tuple[str, str], tuple[float, ...]] = {}

    def trouble(self, model: str) -> Trouble | None:
        """Why the model is not served as it should be; None when it is."""
        found = self._troubles.get(model)
        return None if found is not None and found.safe_mode and self._answering.version(model) else found

    def look(self, model: str) -> None:
        """An update of the model came to an end: see whether it is served."""
        self._suspects.add(model)
        self._wake.set()

    def observe(self, observations: Sequence[Observation]) -> None:
        """Count the deaths of workers."""
        now = self._clock.monotonic()
        for found in observations:
            if isinstance(found, WorkerDied):
                key = found.model, found.version
                self._deaths[key] = (*crash_loop.recent(self._deaths.get(key, ()), now), now)
                if crash_loop.loops(self._deaths[key], now):
                    self.look(found.model)

    async def run(self) -> None:
        """Mend what breaks, until cancelled."""
        while True:
            await self._wake.wait()
            for wait in self._retries.waits():
                self._wake.clear()
                for model in sorted(self._suspects | self._troubles.keys()):
                    await self._mend(model)
                if not self._troubles and not self._suspects:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()

    # boot

    async def boot(self, current: Update | None) -> None:
        """Get every model's right version serving. A model that cannot be served is told of and tried again."""
        for model in self._disk.models():
            try:
                await self._boot(model, current)
            except (FlotillaError, OSError) as error:
                code = error.code if isinstance(error, FlotillaError) else reasons.DiskError.code
                await self._in_trouble(model, None, code, str(error))
        if self._troubles:
            self._wake.set()

    async def _boot(self, model: str, current: Update | None) -> None:
        found = await self._record(model, current)
        record = self._settled(found, current)
        if record != found:
            try:
                self._switch.write(record, found)
            except OSError as error:  # a try that is not counted is not made
                self._switch.give_up(model, reasons.DiskError.code, f"start not recorded: {error}")
        self._checkpoint("boot:recorded")
        trial = None if _leaving(record, current) or self._switch.spent(model) else record.trial
        if trial is None or not record.alone:
            record = await self._serve_good(record)
        if trial is not None and not await self._serve_trial(record, trial) and record.alone:
            await self._serve_good(record)

    async def _record(self, model: str, current: Update | None) -> slots.Record:
        try:
            return self._disk.read(model)
        except reasons.DamagedJournalError as error:
            return await self._rebuilt(model, current, error.detail)

    async def _rebuilt(self, model: str, current: Update | None, why: str) -> slots.Record:
        """Made anew from the slots, durable where the disk lets it be."""
        found = {slot: await asyncio.to_thread(self._disk.found, model, slot) for slot in SLOTS}
        record = rebuilt(
            model,
            {slot: held for slot, held in found.items() if held is not None},
            goods=self._journal.goods(model),
            floor=self._journal.floor(model),
            current=current,
        )
        with contextlib.suppress(OSError):  # made anew at the next start
            self._switch.write(record, slots.Record(model))
        self._checkpoint("boot:rebuilt")
        if record.trial is not None:
            self._switch.give_up(model, reasons.RECORD, "the slot record was damaged during the trial")
        serves = record[record.last_good].version if record.last_good else None
        self._tell(model, serves, Phase.FAILED, reasons.RECORD, f"slot record made anew: {why}")
        return record

    def _settled(self, record: slots.Record, current: Update | None) -> slots.Record:
        """The record with this start's try used up, without a trial that nobody carries any more, and with what
        a crash loop had already led to."""
        if record.trial is None:
            bad = self._bad(record)
            last = record[record.last_good].manifest if record.last_good else None
            looped = last is not None and bad.get(last) == reasons.CRASH_LOOP
            return (slots.switched(record) or record) if looped and crash_loop.refuge(record, bad) else record
        if _leaving(record, current):
            return record
        if current is None or (current.model, current.slot) != (record.model, record.trial):
            logger.warning("trial without an update dropped model=%s slot=%s", record.model, record.trial)
            return slots.retired(record, record.trial)
        if record.tries_left > 0:
            return slots.trial_started(record)
        self._switch.give_up(record.model, reasons.PROBATION_CRASH, "not committed after all its starts")
        return record

    async def _serve_trial(self, record: slots.Record, slot: SlotName) -> bool:
        try:
            await self._answering.serve(record, slot, verify=True)
        except (RefusedError, OSError) as error:
            code = error.code if isinstance(error, RefusedError) else reasons.DiskError.code
            self._switch.give_up(record.model, code, str(error))
            return False
        return True

    async def _serve_good(self, record: slots.Record, *, build: bool = False) -> slots.Record:
        """The last good slot answers, or the one beside it; what is damaged is emptied in the record, which is
        returned. Trouble is noted, or over. With `build` there is time to make engines that are missing."""
        model, code, why = record.model, reasons.DamagedSlotError.code, "the device holds no good version any more"
        for slot in _in_order(record):
            try:
                await self._answering.serve(record, slot, verify=True, build=build)
            except reasons.DamagedSlotError as error:
                code, why = error.code, error.detail
                logger.error("slot damaged model=%s detail=%s", model, error.detail)
                before, record = record, slots.lost(record, slot)
                with contextlib.suppress(OSError):  # found again at the next start
                    self._switch.write(record, before)
            except (RefusedError, OSError) as error:
                code = error.code if isinstance(error, RefusedError) else reasons.DiskError.code
                why = str(error)
                logger.error("version does not load model=%s version=%s detail=%s", model, record[slot].version, why)
            else:
                await self._served(record, slot, code, why)
                return record
        if record.trial is None and self._journal.goods(model):
            await self._in_trouble(model, record, code, why)
        return record

    async def _served(self, record: slots.Record, slot: SlotName, code: str, why: str) -> None:
        """`slot` answers: whether that is as it should be."""
        model = record.model
        if slot != record.last_good:
            self._note(model, code, why, safe_mode=False)
            return
        was = self._troubles.pop(model, None)
        if record.trial is None and (standing_in := record[slots.other(slot)].version) is not None:
            await self._answering.unload(model, standing_in)
        if was is not None:
            logger.info("served again model=%s version=%s", model, record[slot].version)
            self._checkpoint("mended")

    # trouble

    async def _mend(self, model: str) -> None:
        try:
            async with self._switch.lock:
                record = self._disk.read(model)
                if record.trial is None:
                    await self._mended(record)
                self._suspects.discard(model)
        except (FlotillaError, OSError) as error:
            logger.warning("not mended yet model=%s error=%s", model, error)

    async def _mended(self, record: slots.Record) -> None:
        serves = self._answering.version(record.model)
        wanted = record[record.last_good].version if record.last_good else None
        if wanted is None or serves != wanted:
            await self._serve_good(record, build=True)
        elif not crash_loop.loops(self._deaths.get((record.model, wanted), ()), self._clock.monotonic()):
            self._troubles.pop(record.model, None)
        else:
            await self._fall_back(record, wanted)

    async def _fall_back(self, record: slots.Record, left: str) -> None:
        """What serves crashes again and again: the other good slot answers, if there is one."""
        assert record.last_good is not None  # noqa: S101 - `left` is in it
        why = f"{left}: its worker died {crash_loop.DEATHS} times within {crash_loop.WINDOW_SECONDS / 60:g} minutes"
        refuge, switched = crash_loop.refuge(record, self._bad(record)), slots.switched(record)
        if refuge is None or switched is None:
            if record.model not in self._troubles:
                self._tell(record.model, left, Phase.FAILED, reasons.CRASH_LOOP, f"{why}; no other version to go to")
            self._note(record.model, reasons.CRASH_LOOP, why, safe_mode=False)
            return
        await self._answering.load(record, refuge)
        manifest = record[record.last_good].manifest or ""
        self._journal.mark_bad(manifest, reasons.CRASH_LOOP, why)
        self._checkpoint("fall-back:decided")
        rollout = self._journal.rollout_of(record.model, manifest)
        back = f"{why}; back to {record[refuge].version}"
        self._tell(record.model, left, Phase.ROLLED_BACK, reasons.CRASH_LOOP, back, rollout)
        await self._switch.go_back(record, switched)
        self._troubles.pop(record.model, None)

    async def _in_trouble(self, model: str, record: slots.Record | None, code: str, why: str) -> None:
        """Nothing serves the model: applications and manager are told, once."""
        before = self._troubles.get(model)
        self._note(model, code, why, safe_mode=True)
        text = f"model '{model}' is in safe mode: no version of it can serve ({code}: {why})"
        await self._answering.explain(model, text)
        if before is None or not before.safe_mode:
            version = record[record.last_good].version if record and record.last_good else None
            self._tell(model, version, Phase.FAILED, reasons.SafeModeError.code, f"{code}: {why}")

    def _note(self, model: str, code: str, why: str, *, safe_mode: bool) -> None:
        before = self._troubles.get(model)
        since = before.since if before and before.safe_mode == safe_mode else self._clock.now()
        self._troubles[model] = Trouble(code, why, since, safe_mode)

    def _tell(
        self, model: str, version: str | None, phase: Phase, code: str, detail: str, rollout: str | None = None
    ) -> None:
        logger.error("model=%s version=%s %s code=%s detail=%s", model, version, phase, code, detail)
        self._report(
            Draft(self._journal.seen, phase, model=model, version=version, rollout=rollout, reason=code, detail=detail)
        )

    def _bad(self, record: slots.Record) -> dict[str, str]:
        """Manifests in the slots that are proven bad here, with the code."""
        held = [record[slot].manifest for slot in SLOTS]
        return {name: found[0] for name in held if name and (found := self._journal.bad(name))}


def _in_order(record: slots.Record) -> tuple[SlotName, ...]:
    """Slots that may serve, the last good one first."""
    if record.last_good is None:
        return ()
    beside = slots.other(record.last_good)
    stands_in = slots.may_serve(record, beside) and record.trial != beside
    return (record.last_good, beside) if stands_in else (record.last_good,)


def _leaving(record: slots.Record, current: Update | None) -> bool:
    return current is not None and current.model == record.model and current.state in lifecycle.LEAVING
