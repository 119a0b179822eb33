"""A candidate in the shadow, for as long as its terms say: counts come in, are kept, told, and judged.

    room for both? -> a worker that looks on -> counts + those of before a restart -> agreement (judge)
                        | paused while the device is hot or busy

I/O: disk, tasks, clock.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from agent.serving.shadow_runner import ShadowRunner
from agent.update import agreement, conditions, slots
from agent.update.answering import Answering
from agent.update.examination import Examination, swap_need
from agent.update.journal import Journal
from agent.update.lifecycle import SlotName, Update
from agent.update.probation import Hold, Pass, Verdict
from agent.update.reasons import NoMemoryError
from agent.update.room import Way
from shared.clock import Clock
from shared.errors import UnavailableError
from shared.messages import ShadowFigures
from shared.shadow import Terms, in_words, plus

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0  # at the machine
_TOLD: Final = 20  # times that figures are kept and told, within `seconds`
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Renewed:
    """A newer assignment of the same release has other terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowing:
    """Compares what lies in a slot with what serves."""

    examination: Examination
    journal: Journal
    progress: Callable[[Update], None]  # figures for the fleet

    @property
    def answering(self) -> Answering:
        return self.examination.answering

    @property
    def clock(self) -> Clock:
        return self.examination.clock

    def wanted(self, update: Update) -> bool:
        """Whether the update is to be compared with something."""
        return update.shadow is not None and self.answering.version(update.model) is not None

    async def watch(self, update: Update, slot: SlotName) -> tuple[Update, Verdict | Renewed]:
        """The update with its figures, and what they came to. Goes on with the figures of an interrupted watch.

        Raises:
            LoadError, DamagedSlotError: the candidate does not load.
        """
        terms = update.shadow
        if terms is None or not self.wanted(update):
            return update, Pass()
        record = self.examination.disk.read(update.model)
        if (why := self._no_room(update, record, slot, terms)) is not None:
            logger.warning("no room for a shadow release=%s why=%r", update.release, why)
            return update, agreement.without(terms, why)
        changed = asyncio.Event()
        async with self.answering.shadowing(record, slot, terms, changed.set) as shadow:
            return await _Watch(self, update, terms, shadow, changed).run()

    def _no_room(self, update: Update, record: slots.Record, slot: SlotName, terms: Terms) -> str | None:
        needed = swap_need(record, slot, self.examination.disk.manifest(update.model, slot, update.manifest))
        if terms.memory_bytes is not None and needed > terms.memory_bytes:
            return f"it needs {needed / _MIB:.0f} MiB, the shadow may take {terms.memory_bytes / _MIB:.0f} MiB"
        try:
            way = self.examination.way(f"{update.release} in the shadow", needed, update.model)
        except NoMemoryError as error:
            return error.detail
        return None if way is Way.BESIDE else "memory holds one version only"

    def renewed(self, update: Update) -> bool:
        """Whether a newer assignment of this release waits."""
        waiting = self.journal.update("next")
        return waiting is not None and waiting.manifest == update.manifest

    def fit(self, terms: Terms) -> bool:
        """Whether the machine has time and coolness to spare. Looks at sysfs: call it in a thread."""
        settings = self.examination.settings.model_copy(update={"max_cpu_ratio": terms.max_cpu_ratio})
        strain = self.examination.machine.strain()
        return conditions.hindrance(strain, settings, turned_away_seconds=None, waiting=False) is None


class _Watch:
    """One watch, from load to verdict."""

    def __init__(
        self, parts: Shadowing, update: Update, terms: Terms, shadow: ShadowRunner, changed: asyncio.Event
    ) -> None:
        self._parts, self._update, self._terms = parts, update, terms
        self._shadow, self._changed = shadow, changed
        self._before = update.compared or ShadowFigures()  # counted before a restart
        self._started = parts.clock.monotonic()
        self._told = self._looked = self._started
        self._every = max(1.0, terms.seconds / _TOLD)

    async def run(self) -> tuple[Update, Verdict | Renewed]:
        """Until there is a verdict."""
        tick = min(0.2, self._terms.seconds / 10)
        while True:
            found = self._figures()
            verdict = agreement.judge(found, self._terms, self._shadow.deaths)
            if not isinstance(verdict, Hold):
                logger.info("compared release=%s %s verdict=%s", self._update.release, in_words(found), verdict)
                return replace(self._update, compared=found), verdict
            if self._parts.renewed(self._update):
                return replace(self._update, compared=found), Renewed()
            await self._look()
            self._keep(found)
            self._changed.clear()
            await self._wait(tick)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _figures(self) -> ShadowFigures:
        shadow = self._shadow
        here = shadow.figures.model_copy(
            update={"seconds": self._parts.clock.monotonic() - self._started, "crashes": len(shadow.deaths)}
        )
        return plus(self._before, here)

    async def _look(self) -> None:
        now = self._parts.clock.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            await self._shadow.pause(on=not await asyncio.to_thread(self._parts.fit, self._terms))

    def _keep(self, found: ShadowFigures) -> None:
        """Now and then figures become durable, and are told."""
        now = self._parts.clock.monotonic()
        if now - self._told >= self._every:
            self._told = now
            self._update = replace(self._update, compared=found)
            try:
                self._parts.journal.save(self._update)
            except UnavailableError as error:  # with the next ones
                logger.warning("figures not kept code=%s detail=%s", error.code, error.detail)
            self._parts.progress(self._update)
