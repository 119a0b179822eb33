"""The update half of an agent as a process of its own, which kills itself after a chosen effect.

Everything in it is real, the inference endpoint with its processes and the requests to it too. A run ends when
nothing is left to be done; it then writes what a person would look at into `result.json`.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2

from agent.serving.observations import Observation, Sample
from agent.serving.supervisor import Serving
from agent.settings import ServingSettings, UpdateSettings
from agent.telemetry.host import Machine
from agent.update.driver import Driver
from agent.update.fetch import Backoff
from agent.update.journal import Journal
from agent.update.lifecycle import Draft
from agent.update.trust import Trust
from shared.clock import SystemClock
from shared.messages import Announcement
from tests.simulators.machine import Full

LIMIT_SECONDS = 180  # most take one or two
_ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0.5] * 8}]}
SETTINGS = UpdateSettings(
    probation_seconds=0.05,
    probation_requests=10,
    probation_limit_seconds=30,
    minimum_free_bytes=1,
    memory_margin_bytes=0,
    tries=3,
)
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.simulators.killable_agent"])


@dataclass(frozen=True)
class Job:
    """One run. `kill_at` is a checkpoint and how many times it is passed alive."""

    folder: Path
    url: str
    root: bytes
    box: bytes
    announcements: tuple[bytes, ...] = ()
    kill_at: tuple[str, int] | None = None
    bad_version: str | None = None  # requests to this version fail
    alone: bool = False  # memory for one version only: the one that serves is ended before the next is loaded


def run(job: Job) -> dict[str, Any] | None:
    """What the run left behind, or None if it killed itself."""
    (job.folder / "result.json").unlink(missing_ok=True)
    child = _CONTEXT.Process(target=_child, args=(job, time.monotonic()))
    child.start()
    child.join(LIMIT_SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError("the agent came to no end")
    if child.exitcode == -signal.SIGKILL:
        return None
    assert child.exitcode == 0, f"the agent ended with {child.exitcode}"
    found: dict[str, Any] = json.loads((job.folder / "result.json").read_text())
    return found


def import_seconds() -> float:
    """What a start takes beside what `run` measures, whose processes come with everything imported."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tests.simulators.killable_agent"], check=True, cwd=_ROOT)
    return time.monotonic() - began


def _child(job: Job, born: float) -> None:
    asyncio.run(asyncio.wait_for(_Agent(job, born).run(), LIMIT_SECONDS - 5))


class _Agent:
    def __init__(self, job: Job, born: float) -> None:
        self._job = job
        self._born = born
        self._first: float | None = None  # seconds from the start to the first answer
        self._ending = False
        self._marks: Counter[str] = Counter()
        self._seen: list[str] = []
        self._reports: list[dict[str, Any]] = []
        self._moved = asyncio.Event()

    async def run(self) -> None:
        job, clock = self._job, SystemClock()
        journal = Journal(job.folder / "update.sqlite")
        settings = ServingSettings(
            http_port=0, grpc_port=None, when_memory_is_short="stop-start" if job.alone else "refuse"
        )
        serving = Serving(settings, state_dir=job.folder, observe=self._observe)
        async with httpx2.AsyncClient() as http, asyncio.TaskGroup() as group:
            self._driver = Driver(
                settings=SETTINGS,
                state_dir=job.folder,
                trust=Trust(journal, root=job.root, device="cam-1", manager_url=job.url, box_key=job.box, clock=clock),
                journal=journal,
                serving=serving,
                report=self._report,
                clock=clock,
                http=http,
                hardware="x86_64",
                manager_url=job.url,
                backoff=Backoff(0.005, 0.02),
                serving_settings=settings,
                machine=Full() if job.alone else Machine(),
                checkpoint=self._checkpoint,
            )
            tasks = [group.create_task(self._driver.run()), group.create_task(serving.run())]
            await self._driver.booted()
            requests = group.create_task(self._requests(serving, http))
            for body in job.announcements:
                await self._driver.announce(Announcement.parse(body))
            while journal.oldest() or journal.update("next") or journal.update("current"):
                self._moved.clear()
                await asyncio.wait_for(self._moved.wait(), LIMIT_SECONDS)
            self._write(await self._answers(serving, http))
            self._ending = True  # not cancelled: the client may swallow that, and then asks an endpoint that is gone
            await requests
            for task in tasks:
                task.cancel()
        journal.close()

    def _observe(self, found: Sequence[Observation]) -> None:
        self._driver.observe(found)

    def _checkpoint(self, name: str) -> None:
        self._seen.append(name)
        if self._job.kill_at == (name, self._marks[name]):
            os.kill(os.getpid(), signal.SIGKILL)
        self._marks[name] += 1
        self._moved.set()

    def _report(self, draft: Draft) -> None:
        self._reports.append({"phase": draft.phase, "reason": draft.reason, "version": draft.version})
        with (self._job.folder / "reports.jsonl").open("a") as file:
            file.write(json.dumps(self._reports[-1]) + "\n")

    async def _requests(self, serving: Serving, http: httpx2.AsyncClient) -> None:
        """Real traffic all the while; answers of the bad version are told as failed besides."""
        while not self._ending:
            for model, version in (await self._answers(serving, http)).items():
                if version == self._job.bad_version:
                    self._driver.observe([Sample(model, version, "r", 2.0, "internal", {}) for _ in range(5)])
            await asyncio.sleep(0.005)

    async def _answers(self, serving: Serving, http: httpx2.AsyncClient) -> dict[str, str]:
        """Which version really answers for each model, asked over HTTP."""
        where = await serving.started()
        found = {}
        for model in serving.serving():
            url = f"http://127.0.0.1:{where.http_port}/v2/models/{model}/infer"
            answer = await http.post(url, json=REQUEST)
            if answer.status_code != 503:  # taken away since it was listed
                found[model] = answer.raise_for_status().json()["model_version"]
                self._first = self._first or time.monotonic() - self._born
        return found

    def _write(self, serving: dict[str, str]) -> None:
        folder = self._job.folder
        states = {(slot.model, slot.slot): slot.state for slot in self._driver.slots()}
        files = folder.glob("models/*/[ab]/*")
        result = {
            "serving": serving,
            "slots": {f"{slot.model}/{slot.slot}": [slot.state, slot.version] for slot in self._driver.slots()},
            "leftovers": [
                *(str(path) for path in files if states[path.parent.parent.name, path.parent.name] == "empty"),
                *(str(path) for path in folder.glob("chunks/*/*")),
            ],
            "marks": self._seen,
            "first_answer_seconds": self._first,
        }
        (folder / "result.json").write_text(json.dumps(result))
