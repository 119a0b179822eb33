"""The self-test as an update meets it: room for it, engines made on the way, the verdict, the comparison.

    memory? -> (the serving version ends, requests wait) -> trial in a throw-away child -> (it serves again)
      -> engines complete? -> as quick as what serves? -> what was measured, for the slot

I/O: disk, tasks, clock.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from agent.serving import providers
from agent.serving.engines import Engines, Setup
from agent.serving.providers import Runtime
from agent.settings import ServingSettings, UpdateSettings
from agent.telemetry.host import Machine
from agent.update import admission, probation, reasons, room, slots
from agent.update.answering import Answering
from agent.update.holdups import Holdups
from agent.update.lifecycle import SlotName, Update
from agent.update.room import Way
from agent.update.self_test import SelfTest, Trial
from agent.update.slot_disk import SlotDisk
from agent.update.switch import Switch
from shared.clock import Clock
from shared.manifest import Manifest, Tolerance

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS: Final = 10.0
_TOLD_EVERY: Final = 6  # of those, to the fleet


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the version may not serve."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Examines what lies in a slot."""

    settings: UpdateSettings
    serving: ServingSettings
    self_test: SelfTest
    engines: Engines
    disk: SlotDisk
    switch: Switch
    answering: Answering
    machine: Machine
    holdups: Holdups
    clock: Clock
    look: Callable[[str], None]  # see whether this model is served

    async def examine(self, update: Update, slot: SlotName) -> slots.Measured | Refusal:
        """What was measured of a version that may serve, or why it may not.

        Raises:
            RefusedError: there is no room, or no provider, for it.
        """
        manifest = self.disk.manifest(update.model, slot, update.manifest)
        runtime = await self.self_test.runtime() or Runtime()
        fit = admission.providers(
            manifest,
            installed=runtime.providers or None,
            allowed=self.serving.providers,
            cpu_fallback=self.serving.cpu_fallback,
        )
        needed = room.expected_bytes(manifest.artifacts["model"].size_bytes, fit[0])
        way = self.way(f"the self-test of {update.release}", needed, update.model)
        setup = await asyncio.to_thread(
            self.engines.setup,
            fit,
            digest=manifest.artifacts["model"].digest,
            half=manifest.half_precision,
            runtime=runtime.parts,
        )
        if setup.place is not None:
            await asyncio.to_thread(setup.place.prepare)
        async with self._alone(update.model, way):
            trial, seconds = await self._trial(update, slot, manifest, setup)
        if not trial.passed:
            return Refusal(trial.reason or reasons.LOAD, trial.detail)
        return await self._judged(update, manifest, setup, trial, seconds)

    def way(self, what: str, needed: int, model: str) -> Way:
        """How there is room for so many bytes more: beside the version of `model` that serves, or instead of it.

        Raises:
            NoMemoryError: there is none, or what serves may not be ended.
        """
        memory = room.Memory(
            available=self.machine.available_bytes(),
            freed=self._freed(model),
            margin=self.settings.memory_margin_bytes,
        )
        found = room.way(what, needed, memory, may_stop=self.serving.when_memory_is_short == "stop-start")
        if found is Way.ALONE:
            logger.warning("memory is short, what serves ends first for=%r needed=%d memory=%s", what, needed, memory)
        return found

    def _freed(self, model: str) -> int:
        version = self.answering.version(model)
        pid = self.answering.process_of(model, version) if version is not None else None
        return (self.machine.private_bytes(pid) or 0) if pid is not None else 0

    @contextlib.asynccontextmanager
    async def _alone(self, model: str, way: Way) -> AsyncIterator[None]:
        if way is Way.BESIDE:
            yield
            return
        await self.switch.stand_down(model)
        try:
            yield
        finally:
            await self.switch.stand_up(model)
            self.look(model)

    async def _trial(self, update: Update, slot: SlotName, manifest: Manifest, setup: Setup) -> tuple[Trial, float]:
        started = self.clock.monotonic()
        own = self.serving.models.get(update.model)
        half = manifest.half_precision and self.serving.fp16 == "auto"
        async with self._progress(update, setup):
            trial = await self.self_test.run(
                model=self.disk.file(update.model, slot, "model"),
                golden=self.disk.file(update.model, slot, "golden"),
                providers=setup.providers,
                tolerance=manifest.tolerance.get("default", Tolerance()),
                tolerances={name: _tolerance(manifest, name, half=half) for name in setup.providers},
                setup=setup,
                rows=own.max_batch_rows if own is not None else 1,
            )
        return trial, self.clock.monotonic() - started

    @contextlib.asynccontextmanager
    async def _progress(self, update: Update, setup: Setup) -> AsyncIterator[None]:
        """While engines are made, people see that and for how long."""
        if not setup.building:
            yield
            return
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(update), name="engine-progress")
            try:
                yield
            finally:
                telling.cancel()
                self.holdups.end(update)

    async def _tell(self, update: Update) -> None:
        started, limit = self.clock.monotonic(), self.settings.engine_build_timeout_seconds
        looks = 0
        while True:
            elapsed = self.clock.monotonic() - started
            detail = f"engines are made for this GPU: {elapsed:.0f} s of at most {limit:.0f} s"
            self.holdups.begin(update, reasons.ENGINES, detail, tell=looks % _TOLD_EVERY == 0)
            looks += 1
            await asyncio.sleep(_PROGRESS_SECONDS)

    async def _judged(
        self, update: Update, manifest: Manifest, setup: Setup, trial: Trial, seconds: float
    ) -> slots.Measured | Refusal:
        """A version that gave the right answers: with the engines that it needs, and quick enough?"""
        provider = trial.provider or ""
        if setup.place is not None and setup.building:
            finished = await asyncio.to_thread(self.engines.finish, setup.place, seconds=seconds)
            if not finished and provider == providers.TENSORRT:
                return Refusal(reasons.ENGINES, f"{provider} ran the model and kept no engine; is the disk full?")
            logger.info("engines are made release=%s took_s=%.1f kept=%s", update.release, seconds, finished)
        before = self._serving_latency(update.model)
        ratio = self.settings.max_self_test_latency_ratio
        if trial.latency_ms is not None and probation.too_slow(trial.latency_ms, before, ratio=ratio):
            return Refusal(
                reasons.SELF_TEST_LATENCY,
                f"a golden row takes {trial.latency_ms:.1f} ms on {provider}; the version that serves took"
                f" {before:.1f} ms here, allowed is {ratio:g} times that",
            )
        why = providers.stand_in(provider, passed_over=trial.passed_over, accepted=manifest.runtime.providers)
        if why is not None:
            logger.warning("the CPU stands in release=%s why=%r", update.release, why)
        return slots.Measured(
            provider=trial.provider,
            peak_bytes=trial.peak_bytes,
            resident_bytes=trial.resident_bytes,
            latency_ms=trial.latency_ms,
            stand_in=why,
        )

    def _serving_latency(self, model: str) -> float | None:
        record = self.disk.read(model)
        return record[record.last_good].latency_ms if record.last_good is not None else None


def swap_need(record: slots.Record, slot: SlotName, manifest: Manifest) -> int:
    """Bytes that loading the slot takes: as the self-test measured, or else as files of its size usually do."""
    held = record[slot]
    if held.peak_bytes is not None:
        return held.peak_bytes
    return room.expected_bytes(manifest.artifacts["model"].size_bytes, held.provider or providers.CPU)


def _tolerance(manifest: Manifest, provider: str, *, half: bool) -> Tolerance:
    for name in providers.tolerance_names(provider, half=half):
        if name in manifest.tolerance:
            return manifest.tolerance[name]
    return Tolerance()
