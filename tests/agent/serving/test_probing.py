"""Probes through the workers: what they find, and what they must not do."""

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import watchdog
from agent.serving.supervisor import WorkerDied
from tests.agent.serving.kit import COUNT, TOTAL, Running, endpoint, loop_model, model_file, pids, worker_pids

SLOW_COUNT = 5_000_000  # of the loop: seconds of work


@pytest.fixture
async def running(tmp_path: Path, digits_model: Path) -> AsyncIterator[Running]:
    async with endpoint(tmp_path, request_timeout_seconds=3) as found:
        await found.serving.load(model_file(digits_model, "1.0.0"))
        await found.serving.route("digits", "1.0.0")
        yield found


def get(running: Running, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.endpoints.http_port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


async def probe(running: Running) -> tuple[int, Any]:
    return await asyncio.to_thread(get, running, "/v2/health/serving")


async def until_answered(running: Running) -> None:
    async with asyncio.timeout(10):
        while await probe(running) != (200, {"digits": "answered"}):  # noqa: ASYNC110 - processes give no event
            await asyncio.sleep(0.05)


async def test_a_probe_goes_through_the_worker_and_is_counted_nowhere(running: Running) -> None:
    for _ in range(3):
        assert await probe(running) == (200, {"digits": "answered"})
    _, statistics = await asyncio.to_thread(get, running, "/v2/models/digits/stats")
    (entry,) = statistics["model_stats"]
    assert (entry["inference_count"], entry["execution_count"], entry["last_inference"]) == (0, 0, 0)
    assert entry["inference_stats"]["success"]["count"] == entry["inference_stats"]["fail"]["count"] == 0
    await asyncio.sleep(0.3)  # longer than the front keeps observations
    assert running.seen == []


async def test_many_that_ask_at_once_share_one_probe(running: Running) -> None:
    (worker,) = worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        asked = [asyncio.create_task(probe(running)) for _ in range(20)]
        await asyncio.sleep(0.3)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert {json.dumps(found) for found in await asyncio.gather(*asked)} == {'[200, {"digits": "answered"}]'}


async def test_without_a_model_there_is_nothing_to_probe(tmp_path: Path) -> None:
    async with endpoint(tmp_path) as running:
        assert await probe(running) == (200, {})


async def test_a_worker_that_hangs_with_nothing_to_do_is_silent_then_replaced(running: Running) -> None:
    (worker,) = worker_pids()
    os.kill(worker, signal.SIGSTOP)
    assert await probe(running) == (503, {"digits": "silent"})
    await running.until(lambda: WorkerDied("digits", "1.0.0", "hang") in running.seen)
    await until_answered(running)
    assert worker_pids() != [worker]


async def test_a_worker_that_cannot_be_started_is_down_and_that_is_not_the_endpoints_fault(running: Running) -> None:
    (worker,) = worker_pids()
    (forks,) = pids("fork_server")
    os.kill(forks, signal.SIGSTOP)
    try:
        os.kill(worker, signal.SIGKILL)
        await running.until(lambda: any(isinstance(one, WorkerDied) for one in running.seen))
        assert await probe(running) == (200, {"digits": "down"})
    finally:
        os.kill(forks, signal.SIGCONT)
    await until_answered(running)


async def test_a_busy_worker_is_left_at_work_however_often_it_is_probed(tmp_path: Path) -> None:
    path = loop_model(tmp_path)

    def ask(running: Running) -> tuple[int, float]:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", running.endpoints.http_port, timeout=60)
        entry = {"name": "count", "shape": [], "datatype": "INT64", "data": [SLOW_COUNT]}
        connection.request("POST", "/v2/models/loop/infer", json.dumps({"inputs": [entry]}))
        status = connection.getresponse().status
        connection.close()
        return status, time.monotonic() - began

    async with endpoint(tmp_path, request_timeout_seconds=60) as running:
        await running.serving.load(model_file(path, "1", model="loop", inputs=COUNT, outputs=TOTAL))
        await running.serving.route("loop", "1")
        workers = worker_pids()
        asked = asyncio.create_task(asyncio.to_thread(ask, running))
        await asyncio.sleep(0.2)
        assert await probe(running) == (200, {"loop": "busy"})
        found = [await watchdog.probe(running.endpoints, watchdog.LEAST_SECONDS) for _ in range(2)]
        assert set(found) == {watchdog.Found.SERVES}
        status, took = await asked
        assert (status, took > 1) == (200, True), took
        assert worker_pids() == workers
        assert await probe(running) == (200, {"loop": "answered"})


async def test_a_front_that_hangs_is_replaced_behind_the_same_addresses(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MOST_SECONDS", 1.5)
    (front,) = pids("front")
    task = asyncio.create_task(watchdog.run(running.endpoints, running.serving.replace_front))
    try:
        await asyncio.sleep(0.2)
        os.kill(front, signal.SIGSTOP)
        began = time.monotonic()
        assert await probe(running) == (200, {"digits": "answered"})
        took = time.monotonic() - began
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert took < running.within(2 * watchdog.MOST_SECONDS + 1)
    assert pids("front") not in ([front], [])
