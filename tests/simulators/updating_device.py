"""A device whose endpoint is a table of routes, so that every other part can be the real one."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
from nacl.public import PrivateKey

from agent.serving.observations import Feedback, Observation, Sample, WorkerDied
from agent.serving.supervisor import LoadError, ModelFile
from agent.settings import ServingSettings, UpdateSettings
from agent.telemetry.host import Machine
from agent.update.driver import Driver
from agent.update.fetch import Backoff
from agent.update.journal import Journal
from agent.update.lifecycle import Draft
from agent.update.trust import Trust
from shared.clock import Clock, SystemClock
from shared.messages import Announcement, Phase, ShadowFigures
from shared.shadow import Terms, plus
from tests.simulators.machine import WORKER
from tests.simulators.release_repository import Release, ReleaseRepository, golden_of

SETTINGS = UpdateSettings(
    probation_seconds=0.05,
    probation_requests=10,
    probation_limit_seconds=30,
    min_labelled=10,
    minimum_free_bytes=1,
    self_test_timeout_seconds=30,
)
QUICK = Backoff(0.005, 0.02)
WAIT_SECONDS = 120  # a candidate in the shadow stands back behind other tests


@dataclass
class FakeShadow:
    """A candidate that looks on: a test says what was compared."""

    version: str
    terms: Terms
    changed: Callable[[], None]
    figures: ShadowFigures = field(default_factory=ShadowFigures)
    deaths: list[str] = field(default_factory=list)
    paused: bool = False

    async def pause(self, *, on: bool) -> None:
        self.paused = on

    def compared(self, samples: int, agreed: int, **more: object) -> None:
        found = {"requests": samples, "samples": samples, "agreed": agreed, **more}
        self.figures = plus(self.figures, ShadowFigures.model_validate(found))
        self.changed()

    def died(self, how: str) -> None:
        self.deaths.append(how)
        self.changed()


class FakeServing:
    """Keeps the contract of `agent.serving.supervisor.Serving`: only loaded versions can be routed to."""

    def __init__(self) -> None:
        self.loaded: dict[tuple[str, str], ModelFile] = {}
        self.routes: dict[str, str] = {}
        self.refuses: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.paused: list[str] = []
        self.exchanged: list[tuple[str, str]] = []  # version that left, version that came
        self.shadow: FakeShadow | None = None

    async def load(self, file: ModelFile, *, build: bool = False) -> float:
        if file.version in self.refuses:
            raise LoadError(f"{file.version} does not load")
        assert file.path.is_file()
        assert file.path.stat().st_mode & 0o222 == 0
        self.loaded[file.model, file.version] = file
        return 0.0

    async def route(self, model: str, version: str) -> None:
        assert (model, version) in self.loaded
        self.routes[model] = version
        self.reasons.pop(model, None)

    async def exchange(self, file: ModelFile, leaving: str) -> float:
        self.exchanged.append((leaving, file.version))
        await self.pause(file.model, leaving)
        took = await self.load(file)
        await self.route(file.model, file.version)
        return took

    async def pause(self, model: str, version: str) -> None:
        self.paused.append(version)
        await self.unload(model, version)

    def stand_ins(self) -> dict[str, str]:
        files = [self.loaded[route] for route in self.routes.items()]
        return {file.model: file.stand_in for file in files if file.stand_in}

    def process_of(self, model: str, version: str) -> int | None:
        return WORKER if (model, version) in self.loaded else None

    async def explain(self, model: str, text: str) -> None:
        self.reasons.pop(model, None)
        if text:
            self.reasons[model] = text

    @asynccontextmanager
    async def shadowing(
        self, file: ModelFile, terms: Terms, changed: Callable[[], None]
    ) -> AsyncIterator["FakeShadow"]:
        if file.version in self.refuses:
            raise LoadError(f"{file.version} does not load")
        self.shadow = FakeShadow(file.version, terms, changed)
        try:
            yield self.shadow
        finally:
            self.shadow = None

    async def unload(self, model: str, version: str) -> None:
        self.loaded.pop((model, version), None)
        if self.routes.get(model) == version:
            del self.routes[model]

    def serving(self) -> dict[str, str]:
        return dict(self.routes)


@dataclass
class Device:
    """One device; `on()` is one run of its agent."""

    folder: Path
    repository: ReleaseRepository
    settings: UpdateSettings = SETTINGS
    hardware: str = "x86_64"
    box: PrivateKey = field(default_factory=PrivateKey.generate)
    reports: list[Draft] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    providers: Sequence[str] | None = None
    serving_settings: ServingSettings = field(default_factory=ServingSettings)
    clock: Clock = field(default_factory=SystemClock)
    machine: Machine | None = None  # None: a root folder in which nothing can be read

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[None]:
        """What answers, as `serving`."""
        self.serving = FakeServing()
        self.serving.refuses = self.refuses
        yield

    @asynccontextmanager
    async def on(self) -> AsyncIterator["Device"]:
        async with self._endpoint(), self._updating():
            yield self

    @asynccontextmanager
    async def _updating(self) -> AsyncIterator[None]:
        self.journal = Journal(self.folder / "update.sqlite")
        self._changed = asyncio.Event()
        clock = self.clock
        try:
            async with httpx2.AsyncClient() as http:
                self.driver = Driver(
                    settings=self.settings,
                    state_dir=self.folder,
                    trust=Trust(
                        self.journal,
                        root=self.repository.root,
                        device="cam-1",
                        manager_url=self.repository.url,
                        box_key=bytes(self.box),
                        clock=clock,
                    ),
                    journal=self.journal,
                    serving=self.serving,  # type: ignore[arg-type]
                    report=self._report,
                    clock=clock,
                    http=http,
                    hardware=self.hardware,
                    manager_url=self.repository.url,
                    serving_settings=self.serving_settings.model_copy(update={"providers": self.providers}),
                    machine=self.machine or Machine(self.folder / "no such machine"),
                    backoff=QUICK,
                    checkpoint=self._mark,
                )
                async with asyncio.TaskGroup() as group:
                    running = group.create_task(self.driver.run())
                    await self.driver.booted()
                    yield
                    running.cancel()
        finally:
            self.journal.close()

    def _report(self, draft: Draft) -> None:
        self.reports.append(draft)
        self._changed.set()

    def _mark(self, name: str) -> None:
        self.marks.append(name)
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that is marked or reported makes it so."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def assign(self, release: Release, **custom: object) -> None:
        await self.driver.announce(self.announcement(release, **custom))

    def announcement(self, release: Release, **custom: object) -> Announcement:
        return self.repository.announce("cam-1", bytes(self.box.public_key), release, **custom)

    async def end(self) -> Draft:
        """The next final report."""
        await self.until(lambda: any(draft.phase.final for draft in self.reports))
        while not (found := self.reports.pop(0)).phase.final:
            pass
        await self.until(lambda: "finished" in self.marks or found.phase is Phase.REFUSED)
        self.marks.clear()
        return found

    async def install(self, release: Release, **custom: object) -> Draft:
        """Assign, send good traffic, wait for the end."""
        await self.assign(release, **custom)
        await self.until(lambda: self.serves(release.manifest.version) or self._ended())
        if release.manifest.model in self.serving.routes:
            self.traffic(SETTINGS.probation_requests, correct=True)
        return await self.end()

    def _ended(self) -> bool:
        return any(draft.phase.final for draft in self.reports)

    def serves(self, version: str | None, model: str = "digits") -> bool:
        return self.serving.routes.get(model) == version

    def traffic(
        self,
        requests: int = 0,
        *,
        latency_ms: float = 2.0,
        error: str | None = None,
        correct: bool | None = None,
        crashes: int = 0,
    ) -> None:
        """What the endpoint would tell about the version that answers."""
        version = self.serving.routes["digits"]
        found: list[Observation] = [WorkerDied("digits", version, "SIGKILL") for _ in range(crashes)]
        for number in range(requests):
            found.append(Sample("digits", version, str(number), latency_ms, error, {}))
            if correct is not None:
                found.append(Feedback("digits", version, str(number), correct))
        self.driver.observe(found)

    def leftovers(self) -> list[str]:
        """Chunks, and files in slots whose record says that they are empty."""
        states = {(slot.model, slot.slot): slot.state for slot in self.driver.slots()}
        files = list(self.folder.glob("models/*/[ab]/*"))
        orphans = [path for path in files if states[path.parent.parent.name, path.parent.name] == "empty"]
        return [str(path) for path in (*orphans, *self.folder.glob("chunks/*/*"))]


def with_settings(**changes: object) -> UpdateSettings:
    """The usual settings with some changed."""
    return SETTINGS.model_copy(update=changes)


def golden_with_other_answers(model: bytes) -> bytes:
    """Golden outputs that `model` does not give."""
    with np.load(io.BytesIO(golden_of(model))) as golden:
        arrays = dict(golden)
    arrays["output.y"] = arrays["output.y"][:, ::-1]
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
