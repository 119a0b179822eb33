"""Swaps under load, and the death of every process behind the endpoint."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from agent.serving.supervisor import LoadError, Sample, Serving, WorkerDied
from agent.settings import ServingSettings
from tests.agent.serving.kit import (
    COUNT,
    TOTAL,
    Digits,
    Running,
    children_of,
    endpoint,
    loop_model,
    model_file,
    pids,
    worker_pids,
)


class Load:
    """Clients that ask without pause, and what they got."""

    def __init__(self, running: Running, digits: Digits, clients: int = 2) -> None:
        self.answers: list[tuple[float, int, str]] = []  # when, status (0: connection failed), version or error
        self._stop = threading.Event()
        self._port = running.endpoints.http_port
        entry = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": digits.images[0].ravel().tolist()}
        self._body = json.dumps({"inputs": [entry]}).encode()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if answer[1] != 200]

    def versions(self) -> Counter[str]:
        return Counter(answer[2] for answer in self.answers if answer[1] == 200)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v2/models/digits/infer", self._body)
                answer = connection.getresponse()
                document = json.loads(answer.read())
                text = document.get("model_version") or document.get("error")
                self.answers.append((time.monotonic(), answer.status, text))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((time.monotonic(), 0, repr(error)))
                connection.close()
        connection.close()


def ask_once(running: Running, digits: Digits) -> str:
    with Load(running, digits, clients=1) as load:
        while not load.answers:
            time.sleep(0.005)
    assert load.answers[0][1] == 200, load.answers[0]
    return load.answers[0][2]


@pytest.fixture
async def running(tmp_path: Path, digits_model: Path) -> AsyncIterator[Running]:
    async with endpoint(tmp_path, request_timeout_seconds=5) as found:
        await found.serving.load(model_file(digits_model, "1.0.0"))
        await found.serving.route("digits", "1.0.0")
        yield found


async def test_no_request_fails_through_swaps_and_unloading(
    running: Running, digits: Digits, digits_model: Path
) -> None:
    with Load(running, digits) as load:
        for minor in range(1, 6):
            now, then = f"1.{minor}.0", f"1.{minor - 1}.0"
            await running.serving.load(model_file(digits_model, now))
            mark = len(load.answers)
            await running.serving.route("digits", now)
            await running.until(lambda mark=mark: len(load.answers) > mark + 40)
            await running.serving.unload("digits", then)
    assert load.failed == []
    assert len(load.answers) >= 200
    assert len(load.versions()) == 6
    assert dict(running.serving.serving()) == {"digits": "1.5.0"}
    await running.until(lambda: len(worker_pids()) == 1)


async def test_a_killed_worker_of_the_only_version_answers_again_within_three_seconds(
    running: Running, digits: Digits
) -> None:
    (victim,) = worker_pids()
    with Load(running, digits) as load:
        await running.until(lambda: len(load.answers) > 50)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        await running.until(lambda: load.answers[-1][0] > killed + 0.5 and load.answers[-1][1] == 200)
    assert load.failed == []  # even those in flight were answered by the next worker
    first = min(when for when, _, _ in load.answers if when > killed + 0.02)
    assert first - killed < running.within(3)
    await running.until(lambda: WorkerDied("digits", "1.0.0", "SIGKILL") in running.seen)
    assert worker_pids() != [victim]


async def test_the_stand_by_answers_while_the_routed_version_is_down(
    running: Running, digits: Digits, digits_model: Path
) -> None:
    before = set(worker_pids())
    await running.serving.load(model_file(digits_model, "2.0.0"))
    await running.serving.route("digits", "2.0.0")
    (victim,) = set(worker_pids()) - before
    with Load(running, digits) as load:
        await running.until(lambda: load.versions()["2.0.0"] > 20)
        for times in range(1, 4):  # the first restart is at once, so make it lose more than once
            os.kill(victim, signal.SIGKILL)
            await running.until(
                lambda times=times: running.seen.count(WorkerDied("digits", "2.0.0", "SIGKILL")) == times
            )
            await running.until(lambda gone=victim: set(worker_pids()) - before - {gone} != set())
            (victim,) = set(worker_pids()) - before
        died = load.versions()["2.0.0"]
        await running.until(lambda: load.versions()["2.0.0"] > died + 20)
    assert load.failed == []
    assert load.versions()["1.0.0"] > 0


async def test_a_killed_front_is_replaced_behind_the_same_addresses(running: Running, digits: Digits) -> None:
    workers = worker_pids()
    (victim,) = pids("front")
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    assert await asyncio.to_thread(ask_once, running, digits) == "1.0.0"
    assert time.monotonic() - killed < running.within(3)
    assert pids("front") != [victim]
    assert worker_pids() == workers  # they went on and were introduced to the new one


async def test_a_killed_fork_server_is_replaced_and_its_workers_go_on(
    running: Running, digits: Digits, digits_model: Path
) -> None:
    (victim,) = pids("fork_server")
    with Load(running, digits) as load:
        await running.until(lambda: len(load.answers) > 10)
        os.kill(victim, signal.SIGKILL)
        await running.serving.load(model_file(digits_model, "1.1.0"))
        await running.serving.route("digits", "1.1.0")
        await running.until(lambda: load.versions()["1.1.0"] > 10)
        await running.serving.unload("digits", "1.0.0")
    assert load.failed == []
    assert not [one for one in running.seen if isinstance(one, WorkerDied)]


async def test_a_hanging_request_is_ended_and_the_version_serves_again(tmp_path: Path) -> None:
    path = loop_model(tmp_path)

    def ask(where: Running, count: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", where.endpoints.http_port, timeout=20)
        entry = {"name": "count", "shape": [], "datatype": "INT64", "data": [count]}
        connection.request("POST", "/v2/models/loop/infer", json.dumps({"inputs": [entry]}))
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    async with endpoint(tmp_path, request_timeout_seconds=0.5) as where:
        await where.serving.load(model_file(path, "1", model="loop", inputs=COUNT, outputs=TOTAL))
        await where.serving.route("loop", "1")
        assert (await asyncio.to_thread(ask, where, 3))[0] == 200
        status, text = await asyncio.to_thread(ask, where, 2**60)
        assert (status, "did not answer in time" in text) == (503, True), text
        assert (await asyncio.to_thread(ask, where, 3))[0] == 200
        await where.until(lambda: where.seen.count(WorkerDied("loop", "1", "hang")) == 2)  # tried once more, then not
        await where.until(lambda: any(isinstance(one, Sample) and one.error == "timeout" for one in where.seen))


async def test_an_end_in_order_answers_what_was_asked_and_leaves_the_rest_to_the_next_front(tmp_path: Path) -> None:
    path = loop_model(tmp_path)
    body = json.dumps({"inputs": [{"name": "count", "shape": [], "datatype": "INT64", "data": [1_000_000]}]}).encode()
    request = b"POST /v2/models/loop/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with endpoint(tmp_path, request_timeout_seconds=20) as where:
        await where.serving.load(model_file(path, "1", model="loop", inputs=COUNT, outputs=TOTAL))
        await where.serving.route("loop", "1")
        port = where.endpoints.http_port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.3)  # no longer fresh
        writer.write(request)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        leaving = asyncio.create_task(where.serving.leave())
        await asyncio.sleep(0.1)
        late_reader, late = await asyncio.open_connection("127.0.0.1", port)
        late.write(request)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        await leaving
        assert 0.2 < time.monotonic() - began < where.within(4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late_reader.read(1), 0.3)
        os.kill(pids("front")[0], signal.SIGKILL)  # the next one takes it
        assert (await late_reader.readline()).startswith(b"HTTP/1.1 200")
        for end in (writer, idle, late):
            end.close()


async def test_who_connects_before_it_opens_waits(tmp_path: Path, digits: Digits, digits_model: Path) -> None:
    serving = Serving(ServingSettings(http_port=0, grpc_port=None), state_dir=tmp_path, observe=lambda _: None)
    task = asyncio.create_task(serving.run(closed=True))
    try:
        where = Running(serving, await asyncio.wait_for(serving.started(), 60))
        asked = asyncio.create_task(asyncio.to_thread(ask_once, where, digits))
        await asyncio.sleep(0.2)
        os.kill(pids("front")[0], signal.SIGKILL)  # the next one stays closed as well
        await serving.load(model_file(digits_model, "1.0.0"))
        await serving.route("digits", "1.0.0")
        await asyncio.sleep(0.2)
        assert not asked.done()
        await serving.open()
        assert await asked == "1.0.0"
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_load_that_takes_too_long_is_given_up(running: Running, tmp_path: Path, digits: Digits) -> None:
    waiting = tmp_path / "pipe.onnx"
    os.mkfifo(waiting)  # opening it to read waits for a writer that never comes
    object.__setattr__(
        running.serving, "_settings", running.serving._settings.model_copy(update={"load_timeout_seconds": 0.5})
    )
    with pytest.raises(LoadError, match=r"longer than 0\.5 s"):
        await running.serving.load(model_file(waiting, "2.0.0"))
    await running.until(lambda: len(worker_pids()) == 1)
    assert await asyncio.to_thread(ask_once, running, digits) == "1.0.0"


async def test_a_load_that_is_called_off_leaves_no_worker(running: Running, tmp_path: Path) -> None:
    waiting = tmp_path / "pipe.onnx"
    os.mkfifo(waiting)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.serving.load(model_file(waiting, "2.0.0")), 0.5)
    await running.until(lambda: len(worker_pids()) == 1)


async def test_loading_again_is_harmless(running: Running, digits_model: Path) -> None:
    before = worker_pids()
    await running.serving.load(model_file(digits_model, "1.0.0"))
    await running.serving.route("digits", "1.0.0")
    assert worker_pids() == before


SCRIPT = """
import asyncio, sys
from pathlib import Path
from typing import Self
from tests.agent.serving.kit import endpoint, model_file
async def main():
    async with endpoint(Path(sys.argv[1])) as running:
        await running.serving.load(model_file(Path(sys.argv[2]), "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        print("serving", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_sigkill_of_the_daemon_leaves_no_process_behind(tmp_path: Path, digits_model: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    daemon = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(digits_model)], stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"serving\n"
        family = children_of(daemon.pid)
        assert len(family) == 3  # front, fork server, worker
    finally:
        daemon.kill()
        daemon.wait()
        if daemon.stdout is not None:
            daemon.stdout.close()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in family):
        assert time.monotonic() < deadline, [line for pid, line in family.items() if alive(pid)]
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
