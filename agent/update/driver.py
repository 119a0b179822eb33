"""Carries updates along the table of `lifecycle`: save, perform, report; decides nothing itself.

    boot -> intake (announcements -> next) + work (next -> current -> step by step -> finished)

I/O: disk, network, tasks, clock.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx2

from agent.serving.engines import Engines
from agent.serving.supervisor import Observation, Serving
from agent.settings import ServingSettings, UpdateSettings
from agent.telemetry.host import Machine
from agent.update import lifecycle, reasons
from agent.update.answering import Answering
from agent.update.bundle import BundleFolder
from agent.update.chunk_store import ChunkStore
from agent.update.effects import Effects, Outcome, Parts
from agent.update.examination import Examination
from agent.update.fetch import Backoff
from agent.update.holdups import Holdups
from agent.update.intake import Intake
from agent.update.journal import Journal
from agent.update.lifecycle import Draft, Effect, Ending, Event, Update
from agent.update.opening import Opening
from agent.update.overview import Overview
from agent.update.self_test import SelfTest
from agent.update.shadowing import Shadowing
from agent.update.slot_disk import SlotDisk
from agent.update.sources import Sources
from agent.update.standing import Standing
from agent.update.switch import Switch, WentBack
from agent.update.trust import Trust
from agent.update.upkeep import RETRIES, Upkeep
from agent.update.vitals import Vitals
from shared.clock import Clock
from shared.errors import FlotillaError, UnavailableError
from shared.messages import Announcement, Phase, SlotState

logger = logging.getLogger(__name__)

#: Effects that take long and may be left in the middle when a newer assignment arrives.
_NEEDS_A_FIT_MACHINE: Final = frozenset({Effect.SELF_TEST, Effect.COMPARE, Effect.SWAP})
_LEFT_AT_ONCE: Final = frozenset(
    {Effect.PLAN, Effect.FETCH, Effect.ASSEMBLE, Effect.SELF_TEST, Effect.COMPARE, Effect.WATCH}
)


class Driver:
    """The update half of a device. `checkpoint` hears the name of each thing done, for tests that kill."""

    def __init__(
        self,
        *,
        settings: UpdateSettings,
        state_dir: Path,
        trust: Trust,
        journal: Journal,
        serving: Serving,
        report: Callable[[Draft], None],
        clock: Clock,
        http: httpx2.AsyncClient,
        hardware: str,
        manager_url: str,
        serving_settings: ServingSettings | None = None,
        machine: Machine | None = None,
        store: ChunkStore | None = None,
        backoff: Backoff | None = None,
        checkpoint: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._journal, self._serving, self._tell_fleet = journal, serving, report
        self._clock, self._checkpoint = clock, checkpoint
        self._booted, self._news = asyncio.Event(), asyncio.Event()
        self._disk, self._store = SlotDisk(state_dir), store or ChunkStore(state_dir)
        self._vitals = Vitals(journal)
        own = serving_settings or ServingSettings()
        answering = Answering(disk=self._disk, serving=serving, settings=own)
        self._engines, machine = Engines(state_dir, own), machine or Machine()
        self._holdups = Holdups(settings, machine=machine, clock=clock, tell=self._tell_waiting)
        self.hindrance = self._holdups.hindrance
        self._opening = Opening(settings, disk=self._disk, journal=journal, holdups=self._holdups, clock=clock)
        self._switch = Switch(
            disk=self._disk,
            answering=answering,
            journal=journal,
            clock=clock,
            tries=settings.tries,
            checkpoint=checkpoint,
        )
        self._upkeep = Upkeep(
            disk=self._disk,
            answering=answering,
            journal=journal,
            switch=self._switch,
            report=self._report,
            clock=clock,
            checkpoint=checkpoint,
            retries=backoff or RETRIES,
        )
        self._overview = Overview(
            disk=self._disk,
            answering=answering,
            upkeep=self._upkeep,
            journal=journal,
            holdups=self._holdups,
            clock=clock,
        )
        self._backoff = backoff = backoff or Backoff()
        self._intake = Intake(
            journal=journal,
            trust=trust,
            report=self._report,
            accepted=self._news.set,
            backoff=backoff,
            checkpoint=checkpoint,
        )
        fetcher = self.sources = Sources.over(
            http, settings, manager_url=manager_url, store=self._store, backoff=backoff, trouble=self._tell_trouble
        )
        self_test = SelfTest.of(settings, python=own.worker_python)
        examination = Examination(
            settings=settings,
            serving=own,
            self_test=self_test,
            engines=self._engines,
            disk=self._disk,
            switch=self._switch,
            answering=answering,
            machine=machine,
            holdups=self._holdups,
            clock=clock,
            look=self._upkeep.look,
        )
        self._effects = Effects(
            Parts(
                settings=settings,
                journal=journal,
                trust=trust,
                disk=self._disk,
                store=self._store,
                fetcher=fetcher,
                self_test=self_test,
                examination=examination,
                shadowing=Shadowing(examination=examination, journal=journal, progress=self._tell),
                switch=self._switch,
                vitals=self._vitals,
                upkeep=self._upkeep,
                clock=clock,
                hardware=hardware,
                serving=own,
                superseded=self._superseded,
                progress=self._tell,
            )
        )

    # what the daemon calls

    async def run(self) -> None:
        """Until cancelled: serve what was good, finish what was begun, then follow announcements."""
        current = self._journal.update("current")
        if current is None:
            self._store.let_go()
            self._prune_engines()
        await self._upkeep.boot(current)
        self._booted.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.run(), name="update-intake")
            group.create_task(self._work(), name="update-work")
            group.create_task(self._upkeep.run(), name="update-upkeep")
            group.create_task(self._vitals.keep(self._serving.serving), name="update-vitals")

    async def booted(self) -> None:
        """Returns when every model that can serve does."""
        await self._booted.wait()

    async def announce(self, announcement: Announcement) -> None:
        """Durable when it returns. The same bytes again are ignored."""
        await self._intake.announce(announcement)

    async def bring(self, bundle: BundleFolder, number: int) -> lifecycle.Update | None:
        """Durable when it returns: assignment `number` of `bundle`; see `Intake.bring`."""
        return await self._intake.bring(bundle, number)

    def observe(self, observations: Sequence[Observation]) -> None:
        """What the endpoint saw: probation's food."""
        self._vitals.observe(observations)
        self._upkeep.observe(observations)
        self._holdups.observe(observations)

    def slots(self) -> tuple[SlotState, ...]:
        """Both slots of every model."""
        return self._overview.slots()

    def standing(self) -> tuple[Standing, ...]:
        """What serves each model, and why."""
        return self._overview.standing()

    def troubles(self) -> Mapping[str, str]:
        """Model -> why it is not served as it should be, with its code."""
        return self._overview.troubles()

    def assignment(self) -> int:
        """Highest assignment version seen; 0 before the first."""
        return self._journal.seen

    async def rollback(self, model: str | None = None) -> WentBack:
        """By hand: back to the other good version of `model`; None: of the only one that has any. A trial ends and
        is taken back. The same rollout does not bring again what was left.

        Raises:
            NoOtherSlotError: there is none.
            UpdateBusyError: an update is changing the slots at this moment.
            LoadError, DamagedSlotError: it cannot be loaded; nothing changed.
        """
        current = self._journal.update("current")
        if current is not None and current.state is lifecycle.State.PROBATION and model in {None, current.model}:
            self._journal.take_back(current.manifest, current.rollout)
            self._switch.give_up(current.model, reasons.BY_HAND, "taken back by hand")
            return WentBack(current.model, current.version, current.previous or "")
        back = await self._switch.back(model, self._at_work)
        manifest = self._disk.read(back.model).manifest_of(back.left)
        self._journal.take_back(manifest, self._journal.rollout_of(back.model, manifest))
        self._report(
            Draft(
                assignment=self._journal.seen,
                phase=Phase.ROLLED_BACK,
                model=back.model,
                version=back.left,
                reason=reasons.BY_HAND,
                detail=f"back to {back.version} by hand",
            )
        )
        self._upkeep.look(back.model)
        return back

    def _at_work(self, model: str) -> bool:
        current = self._journal.update("current")
        return current is not None and current.model == model

    def _report(self, draft: Draft) -> None:
        """To the fleet; how the last update of each model ended stays here, too."""
        if draft.model is not None and draft.version is not None and draft.phase.final:
            at = self._clock.now()
            self._journal.ended(Ending(draft.model, draft.version, draft.phase, at, draft.reason, draft.detail))
        self._tell_fleet(draft)

    # one update after the other

    async def _work(self) -> None:
        while True:
            for wait in self._backoff.waits():
                try:
                    await self._work_off()
                    break
                except (UnavailableError, OSError) as error:  # the journal knows where to go on
                    logger.warning("update waits error=%s", error)
                    await asyncio.sleep(wait)
            await self._news.wait()
            self._news.clear()

    async def _work_off(self) -> None:
        while (update := self._journal.update("current") or self._journal.promote()) is not None:
            await self._carry(update)

    async def _carry(self, update: Update) -> None:
        self._tell(update)
        while not update.final:
            update = await self._step(update)
        self._journal.finish()
        self._prune_engines()
        self._checkpoint("finished")

    async def _step(self, update: Update) -> Update:
        started = self._clock.monotonic()
        update = self._adopted(update)
        if lifecycle.holds_back(update):
            update = await self._until_told(update)
        update, ended = await self._ready(update)
        outcome = ended or await self._outcome(update)
        self._checkpoint(lifecycle.OWES[update.state])
        superseded = outcome.event is Event.SUPERSEDED
        moved = lifecycle.advance(
            outcome.update,
            outcome.event,
            reason=reasons.CANCELLED if superseded else outcome.reason,
            detail=lifecycle.why_aside(update, self._journal.update("next")) if superseded else outcome.detail,
        )
        self._journal.save(moved)
        self._checkpoint(f"saved:{moved.state}")
        self._tell(moved, took_ms=(self._clock.monotonic() - started) * 1000)
        self._checkpoint(f"told:{moved.state}")
        return moved

    async def _outcome(self, update: Update) -> Outcome:
        """What the owed effect came to, unless it was called off or a newer assignment pushes the update aside."""
        if update.called_off:
            return Outcome(Event.SUPERSEDED, update)
        if lifecycle.OWES[update.state] not in _LEFT_AT_ONCE:
            aside = update.state is not lifecycle.State.PROVEN and self._superseded(update)
            return Outcome(Event.SUPERSEDED, update) if aside else await self._performed(update)
        return await self._unless_newer(update, self._performed(update)) or Outcome(Event.SUPERSEDED, update)

    async def _until_told(self, update: Update) -> Update:
        """Ready; returns when another assignment says to swap, or pushes the update aside."""
        detail = "staged and tested; the manager says when to swap"
        self._holdups.begin(update, reasons.WAITS_FOR_SWITCH, detail)
        try:
            while lifecycle.holds_back(update := self._adopted(update)) and not self._superseded(update):
                await self._news.wait()
                self._news.clear()
        finally:
            self._holdups.end(update)
        return update

    async def _ready(self, update: Update) -> tuple[Update, Outcome | None]:
        """Returns when window and machine let the owed effect begin: the update, or how it ended instead."""
        while (effect := lifecycle.OWES[update.state]) in _NEEDS_A_FIT_MACHINE:
            if effect is Effect.SWAP:
                update = await self._opening.wait(update, aside=self._superseded, newest=self._adopted)
            ended = await self._unless_newer(update, self._fit(update))
            if ended is not None or effect is not Effect.SWAP or self._opening.closed(update) is None:
                return update, ended
        return update, None

    async def _fit(self, update: Update) -> Outcome | None:
        error = await self._holdups.until_fit(update)
        return None if error is None else Outcome(Event.REJECTED, update, error.code, error.detail)

    async def _unless_newer(self, update: Update, work: Coroutine[None, None, Outcome | None]) -> Outcome | None:
        """What `work` comes to; left in the middle when a newer assignment arrives."""
        async with asyncio.TaskGroup() as group:
            effect = group.create_task(work, name=f"effect-{update.state}")
            newer = group.create_task(self._until_superseded(update), name="newer-assignment")
            await asyncio.wait({effect, newer}, return_when=asyncio.FIRST_COMPLETED)
            left = newer.done()
            effect.cancel()
            newer.cancel()
        return Outcome(Event.SUPERSEDED, update) if left else effect.result()

    async def _performed(self, update: Update) -> Outcome:
        tries = 0
        for wait in self._backoff.waits():
            try:
                return await self._effects.perform(update)
            except UnavailableError as error:
                logger.info("trying again state=%s code=%s detail=%s", update.state, error.code, error.detail)
            except FlotillaError as error:
                if Event.REJECTED in lifecycle.MOVES[update.state]:
                    return Outcome(Event.REJECTED, update, error.code, error.detail)
                logger.error("stuck state=%s code=%s detail=%s", update.state, error.code, error.detail)
            except OSError as error:
                tries += 1
                logger.warning("disk or process failed state=%s error=%s", update.state, error)
                if Event.REJECTED in lifecycle.MOVES[update.state] and (found := reasons.of_disk(error, tries)):
                    return Outcome(Event.REJECTED, update, found.code, found.detail)
            await asyncio.sleep(wait)
        raise AssertionError("back-off is endless")

    def _superseded(self, update: Update) -> bool:
        waiting = self._journal.update("next")
        return waiting is not None and lifecycle.may_supersede(update, waiting)

    async def _until_superseded(self, update: Update) -> None:
        while not self._superseded(update):
            await self._news.wait()
            self._news.clear()

    def _adopted(self, update: Update) -> Update:
        """A newer assignment of the same release lets the update go on under its number."""
        waiting = self._journal.update("next")
        if waiting is None or not lifecycle.may_adopt(update, waiting):
            return update
        return self._journal.adopt(update, waiting)

    def _tell_waiting(self, update: Update, code: str, detail: str) -> None:
        if found := lifecycle.draft(update):
            self._report(replace(found, reason=code, detail=detail))

    def _tell_trouble(self, error: FlotillaError) -> None:
        if update := self._journal.update("current"):
            self._tell_waiting(update, error.code, error.detail)

    def _prune_engines(self) -> None:
        """Engines go with the last slot that holds their model."""
        with contextlib.suppress(OSError, FlotillaError):  # the next time
            self._engines.prune(self._disk.model_digests)

    def _tell(self, update: Update, *, took_ms: float | None = None) -> None:
        if found := lifecycle.draft(update, took_ms=took_ms):
            logger.info("update %s release=%s reason=%s", update.state, update.release, found.reason)
            self._report(found)
