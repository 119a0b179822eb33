"""Slots -> the endpoint: load what a slot holds, route to it, or exchange it for what serves.

I/O: disk, tasks.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from agent.serving.providers import candidates
from agent.serving.shadow_runner import ShadowRunner
from agent.serving.supervisor import ModelFile, Serving
from agent.settings import ServingSettings
from agent.update import slots
from agent.update.lifecycle import SlotName
from agent.update.slot_disk import SlotDisk
from shared.shadow import Terms

logger = logging.getLogger(__name__)


class Answering:
    """Every method may be called again."""

    def __init__(self, *, disk: SlotDisk, serving: Serving, settings: ServingSettings) -> None:
        self._disk = disk
        self._serving = serving
        self._settings = settings

    def version(self, model: str) -> str | None:
        """The version that requests for `model` go to now."""
        return self._serving.serving().get(model)

    async def serve(self, record: slots.Record, slot: SlotName, *, verify: bool = False, build: bool = False) -> str:
        """The slot answers from now on; its version. With `verify` every byte of it is checked before; with `build`
        there is time to make engines that are missing.

        Raises:
            LoadError, DamagedSlotError: it cannot; what served before still does.
        """
        file = await self.file(record, slot, verify=verify)
        took = await self._serving.load(file, build=build)
        await self._serving.route(file.model, file.version)
        logger.info("serving model=%s version=%s slot=%s load_s=%.3f", file.model, file.version, slot, took)
        return file.version

    async def load(self, record: slots.Record, slot: SlotName) -> ModelFile:
        """A worker is ready for the slot, nothing is routed to it.

        Raises:
            LoadError, DamagedSlotError: it cannot.
        """
        file = await self.file(record, slot, verify=False)
        await self._serving.load(file)
        return file

    async def route(self, file: ModelFile) -> None:
        """What was loaded answers from now on."""
        await self._serving.route(file.model, file.version)

    async def exchange(self, record: slots.Record, slot: SlotName) -> str:
        """The slot answers instead of the other one, which is ended before; requests wait meanwhile.

        Raises:
            LoadError, DamagedSlotError: it cannot. Requests still wait.
        """
        file = await self.file(record, slot, verify=False)
        leaving = record[slots.other(slot)].version
        took = await self._serving.exchange(file, leaving or "")
        logger.info("exchanged model=%s version=%s slot=%s load_s=%.3f", file.model, file.version, slot, took)
        return file.version

    @contextlib.asynccontextmanager
    async def shadowing(
        self, record: slots.Record, slot: SlotName, terms: Terms, changed: Callable[[], None]
    ) -> AsyncIterator[ShadowRunner]:
        """Until the block ends, what the slot holds looks on while the version that serves answers.

        Raises:
            LoadError, DamagedSlotError: it cannot.
        """
        file = await self.file(record, slot, verify=False)
        async with self._serving.shadowing(file, terms, changed) as found:
            yield found

    async def unload(self, model: str, version: str) -> None:
        """End the version's worker after what it holds. Nothing when it is not loaded."""
        await self._serving.unload(model, version)

    async def pause(self, model: str, version: str) -> None:
        """End the version; requests for the model wait until one answers again."""
        await self._serving.pause(model, version)

    def stand_in(self, model: str) -> str | None:
        """Why the CPU runs what serves `model`, where it should be an accelerator."""
        return self._serving.stand_ins().get(model)

    def process_of(self, model: str, version: str) -> int | None:
        """Process id of the version's worker, while there is one."""
        return self._serving.process_of(model, version)

    async def explain(self, model: str, text: str) -> None:
        """Nothing can serve the model: requests are turned away with this reason. Empty: there is none."""
        await self._serving.explain(model, text)

    async def file(self, record: slots.Record, slot: SlotName, *, verify: bool) -> ModelFile:
        """What a worker is asked to load.

        Raises:
            DamagedSlotError: the slot does not hold what the record says.
        """
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
            providers=candidates(accepted, allowed=self._settings.providers, cpu_fallback=self._settings.cpu_fallback),
            accepted=accepted,
            provider=record[slot].provider,
            stand_in=record[slot].stand_in,
            digest=manifest.artifacts["model"].digest,
            fp16=manifest.half_precision,
        )
