"""The endpoint as the rest of the agent uses it: load a version, route to it, unload it. Everything heals itself.

The daemon holds the listening sockets, starts the front and the fork server and has one runner per loaded
version. What should be (files, routes) is kept here, so any process that dies is replaced and told again.

I/O: disk, network, tasks.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from agent.serving import wakefulness
from agent.serving.channel import ChannelClosedError
from agent.serving.dispatch import Key
from agent.serving.door import Door
from agent.serving.engines import Engines
from agent.serving.forking import Forks
from agent.serving.gate import Gate
from agent.serving.listeners import Endpoints, ListenError, Listeners, bind
from agent.serving.loading import EnginesMissingError, LoadError, ModelFile
from agent.serving.observations import Feedback, Observation, Sample, WorkerDied
from agent.serving.runner import Runner
from agent.serving.shadow_runner import ShadowRunner
from agent.settings import ServingSettings
from shared.errors import RefusedError
from shared.notify import handed
from shared.shadow import Terms

__all__ = [
    "Endpoints",
    "EnginesMissingError",
    "Feedback",
    "ListenError",
    "LoadError",
    "ModelFile",
    "NotLoadedError",
    "Observation",
    "Sample",
    "Serving",
    "WorkerDied",
]

logger = logging.getLogger(__name__)

_FRONT_SECONDS: Final = 30.0  # for a front to come up, or back


class NotLoadedError(RefusedError):
    """A version must be loaded before it can answer."""

    code = "E_NOT_LOADED"
    default_remedy = "load the version first"


class Serving:
    """The inference endpoint of this device."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        state_dir: Path,
        observe: Callable[[Sequence[Observation]], None],
        build_seconds: float = 1800.0,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._observe = observe
        self._build_seconds = build_seconds
        self._engines = Engines(state_dir, settings)
        self._runners: dict[Key, Runner] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._shadows: dict[str, ShadowRunner] = {}  # model -> candidate that looks on
        self._routes: dict[str, str] = {}
        self._held: set[str] = set()  # models between two versions
        self._reasons: dict[str, str] = {}  # models that nothing can serve
        self._opened = True  # clients are let in
        self._loading = asyncio.Lock()  # one at a time: memory, and sessions must not be made side by side
        self._running = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._gate: Gate | None = None
        self._forks: Forks | None = None
        self._door: Door | None = None
        self._listeners: Listeners | None = None

    async def run(self, *, closed: bool = False) -> None:
        """Serve until cancelled. `closed`: who connects waits until `open`.

        Raises:
            ListenError: an address of the endpoint cannot be had.
        """
        self._opened = not closed
        if self._settings.wakeful == "auto" and not wakefulness.possible():
            logger.info(
                "answers take longer on an idle device: /dev/cpu_dma_latency cannot be written, so processors fall "
                "asleep between the steps of a request"
            )
        self._listeners = bind(self._settings, self._state_dir, handed())
        leash, leash_end = os.pipe()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._forks = Forks(python=self._settings.worker_python, leash=leash)
                self._gate = Gate(
                    leash=leash,
                    listeners=[self._listeners.tcp.fileno(), self._listeners.unix.fileno()],
                    settings={
                        "queue_limit": self._settings.queue_limit,
                        "timeout_seconds": self._settings.request_timeout_seconds,
                        "version": _version(),
                        "wakeful": self._settings.wakeful == "auto",
                        "realtime": self._settings.realtime == "auto",
                        "shared_memory": self._settings.shared_memory,
                        "max_connections": self._settings.max_connections,
                    },
                    prepare=self._tell_all,
                    observe=self._observe,
                    hung=self._hung,
                    shadowed=self._shadowed,
                )
                group.create_task(self._gate.child.run(), name="front")
                group.create_task(self._forks.child.run(), name="fork server")
                self._door = Door(self._settings, front=self._listeners.endpoints.uds_path, leash=leash)
                group.create_task(self._door.run(), name="gRPC door")
                self._running.set()
        finally:
            self._running.clear()
            self._group = None
            os.close(leash_end)  # whoever is still there ends by this
            os.close(leash)
            if self._gate is not None:
                self._gate.close()
            self._listeners.close()
            self._runners.clear()
            self._shadows.clear()
            self._tasks.clear()

    async def started(self) -> Endpoints:
        """Where the endpoint listens, once there is a front."""
        gate, _, _ = await self._parts()
        await gate.child.up.wait()
        assert self._listeners is not None  # noqa: S101 - made before the parts
        assert self._door is not None  # noqa: S101 - likewise
        return replace(self._listeners.endpoints, grpc=await self._door.settled())

    async def grpc_opened(self) -> str:
        """Where the gRPC door is, once it is open; perhaps never."""
        assert self._door is not None  # noqa: S101 - made before anything has started
        return await self._door.opened()

    async def open(self) -> None:
        """Let clients in: what `run` was told to keep closed. Repeating it is harmless."""
        self._opened = True
        await self._ordered("open")

    async def leave(self) -> None:
        """The agent ends: answer what was asked, take nothing new. Returns within some seconds."""
        if self._running.is_set() and self._gate is not None:
            await self._gate.leave()

    def replace_front(self) -> None:
        """It does not answer any more; nothing while another one is on its way."""
        if self._gate is not None:
            self._gate.replace()

    async def load(self, file: ModelFile, *, build: bool = False) -> float:
        """Have a worker ready for `file` without routing to it; seconds that loading took. Repeating it is harmless.
        With `build` there is time to make compiled engines that are missing.

        Raises:
            LoadError: the model does not load; nothing that serves was touched.
            EnginesMissingError: its engines must be made first.
        """
        gate, forks, group = await self._parts()
        async with self._loading:
            key = (file.model, file.version)
            runner = self._runners.get(key)
            if runner is not None and runner.file == file:
                return await asyncio.shield(runner.loaded)
            if runner is not None:
                await self._end(key)
            gentle = bool(self._routes)
            runner = Runner(
                file,
                self._settings,
                forks=forks,
                gate=gate,
                engines=self._engines,
                build_seconds=self._build_seconds if build else None,
                observe=self._observe,
                gentle=gentle,
            )
            self._runners[key] = runner
            self._tasks[key] = group.create_task(runner.run(), name=f"worker {file.model} {file.version}")
            try:
                return await asyncio.shield(runner.loaded)
            except BaseException:
                await self._end(key)
                raise

    async def route(self, model: str, version: str) -> None:
        """This loaded version answers from now on; the one before stays as stand-by until it is unloaded.

        Raises:
            NotLoadedError: it was not loaded.
        """
        await self._parts()
        runner = self._runners.get((model, version))
        if runner is None or not runner.loaded.done():
            raise NotLoadedError(f"{model} {version} is not loaded")
        self._routes[model] = version
        self._held.discard(model)
        self._reasons.pop(model, None)
        with contextlib.suppress(ChannelClosedError):  # its worker just died: the next one is introduced when ready
            await runner.introduce()
        await self._ordered("route", model=model, version=version)

    async def exchange(self, file: ModelFile, leaving: str) -> float:
        """End the version `leaving`, then load and route `file`: for memory that does not hold both. Meanwhile
        requests for the model wait, bounded by the queue and their time limit. Seconds that loading took.

        Raises:
            LoadError: the new one does not load. Requests still wait: load and route another one, or `explain`.
        """
        await self.pause(file.model, leaving)
        took = await self.load(file)
        await self.route(file.model, file.version)
        return took

    async def pause(self, model: str, version: str) -> None:
        """End the version and let requests for the model wait, bounded by the queue and their time limit, until one is
        routed again."""
        self._held.add(model)
        await self._ordered("hold", model=model)
        await self.unload(model, version)

    async def explain(self, model: str, text: str) -> None:
        """Nothing can serve the model: requests are turned away with this reason. Empty: there is none any more."""
        self._held.discard(model)
        self._reasons.pop(model, None)
        if text:
            self._reasons[model] = text
        await self._ordered("explain", model=model, text=text)

    async def unload(self, model: str, version: str) -> None:
        """Let the version answer what it has, then end its worker. Nothing when it is not loaded."""
        gate, _, _ = await self._parts()
        key = (model, version)
        if key not in self._runners:
            return
        if self._routes.get(model) == version:
            del self._routes[model]
        self._runners[key].retire()
        await gate.drain(key, timeout_seconds=2 * self._settings.request_timeout_seconds + 1)
        await self._end(key)

    @contextlib.asynccontextmanager
    async def shadowing(
        self, file: ModelFile, terms: Terms, changed: Callable[[], None]
    ) -> AsyncIterator[ShadowRunner]:
        """Until the block ends, a worker of `file` looks at a sample of what the version that serves answers, and
        answers, too; `changed` is called when it counted something. No request ever goes to it.

        Raises:
            LoadError: it does not load; nothing that serves was touched.
        """
        gate, forks, group = await self._parts()
        runner = ShadowRunner(
            file, self._settings, terms, forks=forks, gate=gate, engines=self._engines, changed=changed
        )
        async with self._loading:
            task = group.create_task(runner.run(), name=f"shadow {file.model} {file.version}")
            self._shadows[file.model] = runner
            try:
                await asyncio.shield(runner.loaded)
            except BaseException:
                await self._end_shadow(runner, task)
                raise
        try:
            yield runner
        finally:
            await self._end_shadow(runner, task)

    def serving(self) -> Mapping[str, str]:
        """Model -> version that answers."""
        return dict(self._routes)

    def stand_ins(self) -> Mapping[str, str]:
        """Model -> why its version runs on the CPU, where it should run on an accelerator."""
        routed = {model: self._runners.get((model, version)) for model, version in self._routes.items()}
        return {model: runner.stand_in for model, runner in routed.items() if runner is not None and runner.stand_in}

    def process_of(self, model: str, version: str) -> int | None:
        """Process id of the version's worker, while there is one."""
        runner = self._runners.get((model, version))
        return runner.pid if runner is not None else None

    async def _ordered(self, do: str, **content: str) -> None:
        """Tell the front what was just written down here; a front that dies meanwhile is replaced and told all."""
        gate, _, _ = await self._parts()
        try:
            await gate.order(do, (), **content)
        except ChannelClosedError:
            await asyncio.wait_for(gate.child.up.wait(), _FRONT_SECONDS)

    async def _parts(self) -> tuple[Gate, Forks, asyncio.TaskGroup]:
        await self._running.wait()
        if self._gate is None or self._forks is None or self._group is None:
            raise RuntimeError("the endpoint has ended")
        return self._gate, self._forks, self._group

    async def _end(self, key: Key) -> None:
        self._runners.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _end_shadow(self, runner: ShadowRunner, task: asyncio.Task[None]) -> None:
        runner.retire()
        if self._shadows.get(runner.file.model) is runner:
            del self._shadows[runner.file.model]
        task.cancel()
        await asyncio.wait([task])  # the front learns by the end of the worker that it is gone

    def _shadowed(self, key: Key, counts: dict[str, Any]) -> None:
        runner = self._shadows.get(key[0])
        if runner is not None and runner.file.version == key[1]:
            runner.heard(counts)

    async def _tell_all(self) -> None:
        """A new front learns every version and route."""
        gate, _, _ = await self._parts()
        for runner in (*self._runners.values(), *self._shadows.values()):
            if runner.known:
                with contextlib.suppress(ChannelClosedError):
                    await runner.introduce()
        for model in list(self._held):
            await gate.order("hold", model=model)
        for model, version in list(self._routes.items()):
            await gate.order("route", model=model, version=version)
        for model, text in list(self._reasons.items()):
            await gate.order("explain", model=model, text=text)
        if self._opened:
            await gate.order("open")

    def _hung(self, key: Key) -> None:
        runner = self._runners.get(key)
        if runner is not None:
            runner.stop_hung()


def _version() -> str:
    try:
        return metadata.version("flotilla-edge")
    except metadata.PackageNotFoundError:
        return "0"
