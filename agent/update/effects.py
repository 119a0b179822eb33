"""Perform the effect that an update's state owes, and say what came of it.

Each method finds out by itself how far an earlier, interrupted performance came.

I/O: disk, network, process, tasks, clock.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from agent.settings import ServingSettings, UpdateSettings
from agent.update import admission, assemble, lifecycle, plan, probation, reasons
from agent.update.chunk_store import ChunkStore
from agent.update.examination import Examination, Refusal, swap_need
from agent.update.journal import Journal
from agent.update.lifecycle import Effect, Event, SlotName, Update
from agent.update.plan import Plan
from agent.update.room import Way
from agent.update.self_test import SelfTest
from agent.update.shadowing import Renewed, Shadowing
from agent.update.slot_disk import SlotDisk
from agent.update.slots import Record
from agent.update.sources import Sources
from agent.update.switch import Switch
from agent.update.trust import Trust
from agent.update.unpack import Effort
from agent.update.upkeep import Upkeep
from agent.update.vitals import Vitals
from shared import chunking
from shared.clock import Clock
from shared.delta.errors import DeltaError
from shared.delta.offer import Description, Offer
from shared.errors import BadInputError, RefusedError
from shared.manifest import Chunk, Manifest

logger = logging.getLogger(__name__)

T = TypeVar("T")
REFETCHES: Final = 3  # of chunks that went bad on our own disk
PROGRESS_STEPS: Final = 10  # reports of a download, at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an effect: the event, and the update with what was learnt."""

    event: Event
    update: Update
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What effects work with."""

    settings: UpdateSettings
    journal: Journal
    trust: Trust
    disk: SlotDisk
    store: ChunkStore
    fetcher: Sources
    self_test: SelfTest
    switch: Switch
    vitals: Vitals
    clock: Clock
    hardware: str
    serving: ServingSettings
    examination: Examination
    shadowing: Shadowing
    upkeep: Upkeep
    superseded: Callable[[Update], bool]
    progress: Callable[[Update], None]  # a report of bytes fetched


class Effects:
    """One method for each effect."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._installed: tuple[str, ...] | None = None
        self._refetches = 0

    async def perform(self, update: Update) -> Outcome:
        """What the state of `update` owes.

        Raises:
            RefusedError: it can never succeed.
            UnavailableError, OSError: it may, later.
        """
        return await self._methods[lifecycle.OWES[update.state]](update)

    @property
    def _methods(self) -> Mapping[Effect, Callable[[Update], Awaitable[Outcome]]]:
        return {
            Effect.PLAN: self._plan,
            Effect.CLEAR: self._clear,
            Effect.FETCH: self._fetch,
            Effect.ASSEMBLE: self._assemble,
            Effect.STAGE: self._stage,
            Effect.SELF_TEST: self._self_test,
            Effect.COMPARE: self._compare,
            Effect.SWAP: self._swap,
            Effect.WATCH: self._watch,
            Effect.COMMIT: self._commit,
            Effect.RETIRE: self._retire,
        }

    async def _plan(self, update: Update) -> Outcome:
        parts = self._parts
        record = parts.disk.read(update.model)
        manifest = await self._manifest(update)
        delta = plan.cheapest(manifest, update.offers, self._served(update, record), parts.store.has)
        found = plan.plan(manifest, update.manifest, record, parts.store.has, delta)
        if found.serves:
            trouble = parts.upkeep.trouble(update.model)
            if trouble is None or trouble.code == reasons.CRASH_LOOP:
                return Outcome(Event.SERVED, update)
            code = reasons.SafeModeError.code if trouble.safe_mode else trouble.code
            detail = f"{update.release} is here already and cannot serve: {trouble.detail}"
            return Outcome(Event.REJECTED, update, code, detail)
        admission.admit(update, manifest, await self._facts(update, manifest, found))
        last_good = record[record.last_good].version if record.last_good else None
        kept = parts.disk.keeps(update.model, update.manifest)
        planned = replace(
            update,
            slot=found.slot,
            previous=last_good,
            total_bytes=found.total_bytes,
            fetched_bytes=found.total_bytes - (0 if kept else found.missing_bytes),
            delta=delta,
        )
        return Outcome(Event.HELD if found.held else Event.PLANNED, planned)

    def _served(self, update: Update, record: Record) -> str | None:
        """The digest of the model file in the slot that serves, which stays whatever happens."""
        slot = record.last_good
        if slot is None or not update.offers:
            return None
        try:
            manifest = self._parts.disk.manifest(update.model, slot, record[slot].manifest)
        except reasons.DamagedSlotError:
            return None
        return manifest.artifacts["model"].digest

    async def _facts(self, update: Update, manifest: Manifest, found: Plan) -> admission.Facts:
        parts = self._parts
        kept = parts.disk.keeps(update.model, update.manifest)
        if self._installed is None:
            self._installed = await parts.self_test.providers()
        return admission.Facts(
            hardware=parts.hardware,
            providers=self._installed,
            allowed=parts.serving.providers,
            cpu_fallback=parts.serving.cpu_fallback,
            free_bytes=parts.disk.free_bytes()
            + parts.store.size_bytes(but={chunk.id for chunk in plan.chunks(manifest)})
            + parts.disk.used_bytes(update.model, found.slot)
            + parts.disk.kept_bytes(update.model),
            keep_free_bytes=parts.settings.minimum_free_bytes,
            missing_bytes=0 if kept else found.missing_bytes,
            plain_bytes=0 if kept else found.plain_bytes,
            counter_floor=max(parts.journal.floor(update.model), parts.disk.read(update.model).minimum_counter),
            known_bad=parts.journal.bad(update.manifest),
            taken_back=parts.journal.taken_back(update),
        )

    async def _manifest(self, update: Update) -> Manifest:
        data = self._parts.journal.manifest(update.manifest)
        if data is None:
            data = await self._parts.fetcher.manifest(update.manifest)
            self._parts.journal.save_manifest(update.manifest, data)
        try:
            return Manifest.parse(data, update.manifest)
        except BadInputError as error:
            raise reasons.ManifestError(error.detail) from None

    async def _clear(self, update: Update) -> Outcome:
        parts = self._parts
        await parts.switch.clear(update, _slot(update))
        if not parts.disk.keeps(update.model, update.manifest):
            manifest = await self._manifest(update)
            needed = manifest.sealed_bytes + manifest.plain_bytes + parts.settings.minimum_free_bytes
            parts.disk.make_room(update.model, needed)
        return Outcome(Event.CLEARED, update)

    async def _fetch(self, update: Update) -> Outcome:
        if self._parts.disk.keeps(update.model, update.manifest):
            return Outcome(Event.FETCHED, update)
        manifest = await self._manifest(update)
        if update.delta is not None:
            try:
                return await self._fetch_delta(update, update.delta, manifest)
            except RefusedError as error:
                update = _in_full(update, manifest, error)
        return Outcome(Event.FETCHED, await self._bring(update, plan.chunks(manifest)))

    async def _fetch_delta(self, update: Update, offer: Offer, manifest: Manifest) -> Outcome:
        """The description first: it says what else is wanted."""
        rest = plan.chunks(manifest, model=False)
        known = (offer.chunk, *rest)
        if self._parts.store.has(offer.chunk):
            known = (*known, *self._description(offer, manifest).stream.chunks)
        self._parts.store.prune(keep={chunk.id for chunk in known})
        update = await self._bring(update, (offer.chunk,), prune=False, optional=True)
        stream = self._description(offer, manifest).stream.chunks
        update = await self._bring(update, (offer.chunk, *stream), prune=False, optional=True)
        return Outcome(Event.FETCHED, await self._bring(update, (offer.chunk, *stream, *rest)))

    def _description(self, offer: Offer, manifest: Manifest) -> Description:
        """Of a delta whose description is in the store."""
        return Description.parse(self._parts.store.get(offer.description), offer, manifest.artifacts["model"])

    async def _bring(
        self, update: Update, wanted: Sequence[Chunk], *, prune: bool = True, optional: bool = False
    ) -> Update:
        """The chunks that are not in the store yet, into it."""
        parts = self._parts
        if prune:
            parts.store.prune(keep={chunk.id for chunk in wanted})
        missing = [chunk for chunk in wanted if not parts.store.has(chunk)]
        progress = _Progress(update, _bytes(wanted) - _bytes(missing), parts)
        await parts.fetcher.chunks(missing, progress.more, optional=optional)
        return progress.newest()

    async def _assemble(self, update: Update) -> Outcome:
        parts = self._parts
        manifest = await self._manifest(update)
        slot = _slot(update)
        if await _to_the_end(lambda: assemble.restored(manifest, update.manifest, disk=parts.disk, slot=slot)):
            return Outcome(Event.ASSEMBLED, update)
        try:
            base = self._base(update, manifest)
            await _to_the_end(
                lambda: assemble.assemble(
                    manifest,
                    parts.journal.manifest(update.manifest) or manifest.to_bytes(),
                    content_key=parts.trust.content_key(update),
                    store=parts.store,
                    disk=parts.disk,
                    slot=slot,
                    base=base,
                    effort=Effort(parts.settings.install_threads, parts.settings.install_nice),
                )
            )
        except (DeltaError, chunking.WrongKeyError) as error:
            if update.delta is None:
                raise
            return Outcome(Event.CHUNK_LOST, _in_full(update, manifest, error))
        except chunking.DamagedChunkError as error:
            self._refetches += 1
            if self._refetches > REFETCHES:
                raise
            logger.warning("stored chunk lost, fetching again detail=%s", error.detail)
            return Outcome(Event.CHUNK_LOST, update)
        return Outcome(Event.ASSEMBLED, update)

    def _base(self, update: Update, manifest: Manifest) -> assemble.Base | None:
        """What a delta starts from: the model file that serves."""
        record = self._parts.disk.read(update.model)
        if update.delta is None:
            return None
        if record.last_good is None or self._served(update, record) != update.delta.base:
            raise DeltaError("the release that the delta starts from does not serve any more")
        path = self._parts.disk.file(update.model, record.last_good, "model")
        return assemble.Base(path, self._description(update.delta, manifest))

    async def _stage(self, update: Update) -> Outcome:
        await self._parts.switch.stage(update, _slot(update))
        self._parts.store.let_go()
        return Outcome(Event.STAGED, update)

    async def _self_test(self, update: Update) -> Outcome:
        parts = self._parts
        found = await parts.examination.examine(update, _slot(update))
        if isinstance(found, Refusal):
            return Outcome(Event.REJECTED, update, found.reason, found.detail)
        await parts.switch.tested(update, _slot(update), found)
        return Outcome(Event.CHOSEN if parts.shadowing.wanted(update) else Event.PASSED, update)

    async def _compare(self, update: Update) -> Outcome:
        compared, verdict = await self._parts.shadowing.watch(update, _slot(update))
        match verdict:
            case Renewed():
                return Outcome(Event.RENEWED, compared)
            case probation.Fail(reason, detail):
                return Outcome(Event.REJECTED, compared, reason, detail)
            case _:
                return Outcome(Event.PASSED, compared)

    async def _swap(self, update: Update) -> Outcome:
        parts = self._parts
        if spent := parts.switch.spent(update.model):
            return Outcome(Event.REJECTED, update, *spent)
        if update.previous is not None:
            parts.vitals.remember(update.model, update.previous)
        parts.vitals.start_over(update.model, update.version)
        await parts.switch.swap(update, _slot(update), alone=self._alone(update))
        return Outcome(Event.SWAPPED, update)

    def _alone(self, update: Update) -> bool:
        """Whether what serves must end first. Once the record says so, that stays."""
        parts, slot = self._parts, _slot(update)
        record = parts.disk.read(update.model)
        if record.trial == slot:
            return record.alone
        manifest = parts.disk.manifest(update.model, slot, update.manifest)
        needed = swap_need(record, slot, manifest)
        return parts.examination.way(f"{update.release}", needed, update.model) is Way.ALONE

    async def _watch(self, update: Update) -> Outcome:
        parts = self._parts
        settings = parts.settings
        before = probation.Performance()
        if update.previous is not None:
            before = parts.journal.performance(update.model, update.previous)
        tick = min(0.2, settings.probation_seconds / 10)
        started = parts.clock.monotonic()
        while True:
            if spent := parts.switch.spent(update.model):
                return Outcome(Event.REJECTED, update, *spent)
            now = parts.vitals.performance(update.model, update.version)
            elapsed = parts.clock.monotonic() - started
            match probation.judge(now, before, elapsed_seconds=elapsed, settings=settings):
                case probation.Pass():
                    return Outcome(Event.PASSED, update)
                case probation.Fail(reason, detail):
                    return Outcome(Event.REJECTED, update, reason, detail)
                case probation.Hold():
                    await asyncio.sleep(tick)

    async def _commit(self, update: Update) -> Outcome:
        parts = self._parts
        if not parts.switch.committed(update) and parts.superseded(update):
            return Outcome(Event.SUPERSEDED, update)
        parts.vitals.remember(update.model, update.version)
        await parts.switch.commit(update, _slot(update))
        parts.upkeep.look(update.model)
        return Outcome(Event.COMMITTED, update)

    async def _retire(self, update: Update) -> Outcome:
        await self._parts.switch.retire(update)
        self._parts.upkeep.look(update.model)
        self._parts.store.let_go()
        return Outcome(Event.RETIRED, update)


class _Progress:
    """Bytes fetched, saved and told to the fleet in a few steps."""

    def __init__(self, update: Update, fetched_bytes: int, parts: Parts) -> None:
        self._update, self._parts = update, parts
        self._step = max(1, (update.total_bytes or 0) // PROGRESS_STEPS)
        self._fetched = self._told = fetched_bytes
        self._before = Counter(parts.fetcher.received)

    def more(self, fetched: int) -> None:
        """`fetched` more bytes are in the store."""
        self._fetched += fetched
        if self._fetched - self._told >= self._step:
            self._told = self._fetched
            self._parts.journal.save(self.newest())
            self._parts.progress(self.newest())

    def newest(self) -> Update:
        """The update with what was fetched up to now, and from where."""
        sources = Counter(self._update.sources)
        sources.update(self._parts.fetcher.received - self._before)
        return replace(self._update, fetched_bytes=self._fetched, sources=dict(sources))


def _in_full(update: Update, manifest: Manifest, error: RefusedError) -> Update:
    """The update without its delta: the device comes to the release by the full file."""
    why = (error.code, error.detail)
    logger.warning("delta given up, fetching in full release=%s code=%s detail=%s", update.release, *why)
    return replace(update, delta=None, total_bytes=manifest.sealed_bytes)


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run in a thread; a cancellation waits for it, so that nobody clears what it still writes."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def _slot(update: Update) -> SlotName:
    if update.slot is None:
        raise RuntimeError(f"{update.state} without a slot")
    return update.slot


def _bytes(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.size_bytes for chunk in chunks)
