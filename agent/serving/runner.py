"""One loaded version: its worker is started, introduced to the front, and started again when it dies.

I/O: network, tasks, clock.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.serving import loading, providers
from agent.serving.backoff import Backoff
from agent.serving.channel import Channel, ChannelClosedError, pair
from agent.serving.dispatch import Key
from agent.serving.engines import Engines, Setup
from agent.serving.forking import Forks
from agent.serving.gate import Gate
from agent.serving.loading import EnginesMissingError, LoadError, ModelFile
from agent.serving.observations import Observation, WorkerDied
from agent.settings import ModelServing, ServingSettings
from shared.manifest import Tensor

logger = logging.getLogger(__name__)

_USUAL: Final = ModelServing()
_MEMORY_GONE: Final = "SIGBUS"


class Runner:
    """Keeps the worker of one file alive. `loaded` is done when it was ready for the first time."""

    def __init__(
        self,
        file: ModelFile,
        settings: ServingSettings,
        *,
        forks: Forks,
        gate: Gate,
        engines: Engines,
        build_seconds: float | None,
        observe: Callable[[Sequence[Observation]], None],
        gentle: bool,
    ) -> None:
        self.file = file
        self.loaded: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._forks = forks
        self._gate = gate
        self._engines = engines
        self._build_seconds = build_seconds  # for a load that must make engines first; None: it fails instead
        self.stand_in = file.stand_in  # why the CPU serves instead of an accelerator; None: it does not
        self._observe = observe
        self._gentle = gentle  # the first load keeps out of the way of what serves; a restart does not
        self._channel: Channel | None = None  # of a worker that is ready
        self._pid: int | None = None
        self._hung = False
        self._retired = False
        self._attached = 0  # to this generation of the front
        self._attaching = asyncio.Lock()

    @property
    def key(self) -> Key:
        return self.file.model, self.file.version

    async def run(self) -> None:
        """Until cancelled, or until the first load failed."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            born = loop.time()
            try:
                how = await self._live()
            except ChannelClosedError:
                how = "lost"
            except LoadError as error:
                how = error.exit
                if not self.loaded.done():
                    self.loaded.set_exception(error)
                    return
                logger.warning("restart failed model=%s version=%s reason=%r", *self.key, error.detail)
            if self._retired:
                return
            if how == _MEMORY_GONE and self._gate.lent:  # no fault of the version
                logger.warning("a client cut shared memory short and a worker died of it model=%s", self.file.model)
            elif self.loaded.done():
                self._observe([WorkerDied(*self.key, how)])
            delay = backoff.delay(loop.time() - born)
            logger.warning(
                "worker ended, it is started again model=%s version=%s exit=%r delay_s=%.1f", *self.key, how, delay
            )
            await asyncio.sleep(delay)

    async def introduce(self) -> None:
        """Tell the front of this version, and connect the two once the worker is ready. Harmless to repeat.

        Raises:
            ChannelClosedError: front or worker died; whoever replaces it comes here again.
        """
        async with self._attaching:
            if self._retired:
                return
            described: dict[str, Any] = {
                "model": self.file.model,
                "version": self.file.version,
                "inputs": _described(self.file.inputs),
                "outputs": _described(self.file.outputs),
                **self._joining(),
            }
            if self._channel is None:
                await self._gate.order("expect", **described)
                return
            if self._attached == self._gate.generation:
                return
            fronts, workers = pair()
            with fronts, workers:
                await self._channel.send({"attach": True}, [workers.fileno(), self._gate.arena])
                await self._gate.order("attach", [fronts.fileno()], **described)
            self._attached = self._gate.generation

    @property
    def known(self) -> bool:
        """Whether the front should know of this version."""
        return self.loaded.done() or self._channel is not None

    def retire(self) -> None:
        """From now on its worker's end is wanted."""
        self._retired = True

    def stop_hung(self) -> None:
        """The front found that the worker hangs: end it."""
        if self._pid is not None:
            self._hung = True
            self._forks.kill(self._pid)

    async def _live(self) -> str:
        """One life of the worker: how it ended."""
        ours, theirs = pair()
        channel = Channel(ours)
        self._hung = False
        pid: int | None = None
        try:
            with theirs:
                setup = await self._setup()
                pid = await self._spawn(theirs, setup)
            self._pid = pid
            took, scheduled = await self._ready(channel, pid, setup)
            self._channel = channel
            self._attached = 0
            with contextlib.suppress(ChannelClosedError):
                await self.introduce()
            if not self.loaded.done():
                self.loaded.set_result(took)
            logger.info(
                "worker is ready model=%s version=%s pid=%d took_s=%.3f class=%r", *self.key, pid, took, scheduled
            )
            while await channel.receive() is not None:
                pass
            found = await self._forks.exit_of(pid)
            return "hang" if self._hung else found
        finally:
            self._channel = self._pid = None
            channel.close()  # a worker that still lives ends by this,
            if pid is not None:
                await self._see_off(pid)  # or by force

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        return self._pid

    async def _setup(self) -> Setup:
        """Providers and engines for this life of the worker.

        Raises:
            EnginesMissingError: they must be made first, and this is not the time.
        """
        file = self.file
        try:
            async with asyncio.timeout(self._settings.load_timeout_seconds):
                runtime = await self._forks.runtime()
        except TimeoutError:
            raise self._no_fork_server() from None
        here = [name for name in file.providers if name in runtime.providers] or file.providers
        fit = providers.to_serve(here, measured=file.provider, cpu_fallback=self._settings.cpu_fallback)
        found = await asyncio.to_thread(
            self._engines.setup, fit, digest=file.digest, half=file.fp16, runtime=runtime.parts
        )
        if found.place is None or not found.building:
            return found
        if self._build_seconds is None:
            raise EnginesMissingError(f"{file.model} {file.version} has no engines for the runtime that is installed")
        logger.info("engines are made model=%s version=%s limit_s=%g", *self.key, self._build_seconds)
        await asyncio.to_thread(found.place.prepare)
        return found

    def _job(self, setup: Setup) -> dict[str, Any]:
        return {
            "model": self.file.model,
            "version": self.file.version,
            "path": str(self.file.path),
            "inputs": _described(self.file.inputs),
            "outputs": _described(self.file.outputs),
            "providers": list(setup.providers),
            "options": {name: dict(found) for name, found in setup.options.items()},
            "readable": setup.readable,
            "writable": setup.writable,
            "threads": self._own.threads or self._settings.threads,
            **self._joining(),
            "gentle": self._gentle and not self.loaded.done(),
            "realtime": self._settings.realtime == "auto",
            "wakeful": self._settings.wakeful == "auto",
            "probes": self._settings.probes == "on",
        }

    async def _spawn(self, control: Any, setup: Setup) -> int:
        try:
            async with asyncio.timeout(self._settings.load_timeout_seconds):
                return await self._forks.spawn(self._job(setup), control)
        except TimeoutError:
            raise self._no_fork_server() from None

    def _no_fork_server(self) -> LoadError:
        return LoadError(
            f"no worker can be started: the fork server does not come up ({self._forks.child.last_exit or 'slow'})",
            remedy="check that onnxruntime is installed for the interpreter in serving.worker_python",
        )

    @property
    def _own(self) -> ModelServing:
        return self._settings.models.get(self.file.model, _USUAL)

    def _joining(self) -> dict[str, int]:
        own = self._own
        return {"max_batch_rows": own.max_batch_rows, "batch_delay_microseconds": own.batch_delay_microseconds}

    async def _ready(self, channel: Channel, pid: int, setup: Setup) -> tuple[float, str]:
        """Seconds that loading took, and the worker's scheduling class."""
        limit = self._settings.load_timeout_seconds
        if setup.building and self._build_seconds is not None:
            limit = self._build_seconds
        try:
            async with asyncio.timeout(limit):
                message = await channel.receive()
        except TimeoutError:
            late = LoadError(f"loading {self.file.model} {self.file.version} took longer than {limit:g} s")
            late.exit = "hang"
            raise late from None
        if message is None:
            how = await self._forks.exit_of(pid)
            failed = LoadError(f"the worker that loaded {self.file.model} {self.file.version} died: {how}")
            failed.exit = how
            raise failed
        news = json.loads(message)
        if "failed" in news:
            raise loading.failed(self.file, str(news["failed"]), no_provider=bool(news.get("no_provider")))
        self._forks.unconfined(news.get("unconfined", ()))
        self.stand_in = loading.judged(
            self.file, str(news["provider"]), news["passed_over"], cpu_fallback=self._settings.cpu_fallback
        )
        if self.stand_in:
            logger.warning("the CPU stands in model=%s version=%s why=%r", *self.key, self.stand_in)
        if setup.place is not None and setup.building:
            await asyncio.to_thread(self._engines.finish, setup.place, seconds=float(news["ready"]))
        return float(news["ready"]), str(news["class"])

    async def _see_off(self, pid: int) -> None:
        try:
            if await self._forks.exit_of(pid) == "lost":
                self._forks.kill(pid)
        finally:
            self._forks.forget(pid)


def _described(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [{"name": entry.name, "datatype": entry.datatype, "shape": list(entry.shape)} for entry in tensors]
