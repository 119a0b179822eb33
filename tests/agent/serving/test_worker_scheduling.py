"""Scheduling classes of real processes, as the kernel tells them; and what remains without the rights."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.serving.supervisor import WorkerDied
from agent.serving.worker_scheduling import FRONT, GENTLE, OFF, REALTIME, WORKER, may_rise
from tests.agent.serving.kit import COUNT, TOTAL, Running, endpoint, loop_model, model_file, pids, worker_pids

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534


def granted() -> bool:
    code = f"import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param({FRONT}))"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


needs_realtime = pytest.mark.skipif(not granted(), reason="SCHED_FIFO is not granted here (LimitRTPRIO=2)")
needs_nice = pytest.mark.skipif(not may_rise(), reason="priority cannot be raised again here (LimitNICE=+0)")


def classes(pid: int) -> dict[int, tuple[int, int, int]]:
    """Thread -> class (without its reset-on-fork flag), its priority in it, nice value."""
    return {task: describe(task) for task in threads(pid)}


def threads(pid: int) -> Iterator[int]:
    yield from (int(entry.name) for entry in (Path("/proc") / str(pid) / "task").iterdir())


def describe(task: int) -> tuple[int, int, int]:
    kind = os.sched_getscheduler(task) & ~os.SCHED_RESET_ON_FORK
    return kind, os.sched_getparam(task).sched_priority, os.getpriority(os.PRIO_PROCESS, task)


NORMAL = (os.SCHED_OTHER, 0, 0)


@needs_realtime
async def test_the_front_goes_before_the_worker_and_the_worker_before_everything_else(
    tmp_path: Path, digits_model: Path
) -> None:
    async with endpoint(tmp_path, threads=2) as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        ((front,), (worker,), (fork_server,)) = pids("front"), worker_pids(), pids("fork_server")
        assert set(classes(front).values()) == {(os.SCHED_FIFO, FRONT, 0)}
        await running.until(lambda: (os.SCHED_FIFO, WORKER + 1, 0) in classes(worker).values())
        found = sorted(classes(worker).values())
        assert found[:-1] == [(os.SCHED_FIFO, WORKER, 0)] * (len(found) - 1)  # also the threads of onnxruntime
        assert len(found) >= 3
        assert set(classes(fork_server).values()) == {NORMAL}
        assert describe(os.getpid()) == NORMAL


@needs_nice
async def test_what_loads_beside_a_serving_version_is_gentle(tmp_path: Path, digits_model: Path) -> None:
    waiting = tmp_path / "pipe.onnx"
    os.mkfifo(waiting)  # opening it to read waits for a writer that never comes
    async with endpoint(tmp_path) as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        before = set(worker_pids())
        loading = asyncio.create_task(running.serving.load(model_file(waiting, "2.0.0")))
        await running.until(lambda: len(worker_pids()) == 2)
        (loader,) = set(worker_pids()) - before
        await running.until(lambda: set(classes(loader).values()) == {(os.SCHED_OTHER, 0, GENTLE)})
        loading.cancel()
        await asyncio.wait([loading])


async def test_realtime_can_be_switched_off(tmp_path: Path, digits_model: Path) -> None:
    async with endpoint(tmp_path, realtime="off") as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        for pid in (*pids("front"), *worker_pids()):
            assert set(classes(pid).values()) == {NORMAL}


@needs_realtime
async def test_a_model_that_loops_loses_its_privilege_long_before_it_is_ended(tmp_path: Path) -> None:
    path = loop_model(tmp_path)
    async with endpoint(tmp_path, request_timeout_seconds=2) as running:
        await running.serving.load(model_file(path, "1", model="loop", inputs=COUNT, outputs=TOTAL))
        await running.serving.route("loop", "1")
        (worker,) = worker_pids()
        assert describe(worker)[:2] == (os.SCHED_FIFO, WORKER)
        asking = asyncio.create_task(ask_for_ever(running))
        await running.until(lambda: describe(worker) == NORMAL, seconds=1.9)
        assert WorkerDied("loop", "1", "hang") not in running.seen
        await running.until(lambda: WorkerDied("loop", "1", "hang") in running.seen)
        asking.cancel()
        await asyncio.wait([asking])


async def ask_for_ever(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.endpoints.http_port)
    body = json.dumps({"inputs": [{"name": "count", "shape": [], "datatype": "INT64", "data": [2**60]}]}).encode()
    head = f"POST /v2/models/loop/infer HTTP/1.1\r\nHost: device\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        await asyncio.sleep(20)
    finally:
        writer.close()


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_realtime
def test_a_flood_costs_the_front_its_privilege_for_a_while_only() -> None:
    said = run("""
        import os, signal, time
        from agent.serving import worker_scheduling
        worker_scheduling._REST_SECONDS = (0.3,)
        priority = worker_scheduling.Priority(worker_scheduling.FRONT)
        signal.signal(signal.SIGXCPU, lambda *_: priority.sink())
        kind = lambda: os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        assert priority.rise() == worker_scheduling.REALTIME
        for _ in range(2):  # the second time as soon as the first: the limit is put back
            assert kind() == os.SCHED_FIFO
            began = time.monotonic()
            while kind() == os.SCHED_FIFO and time.monotonic() - began < 5:
                pass
            print(time.monotonic() - began < 1)
            priority.rise_when_rested()
            assert kind() == os.SCHED_OTHER
            time.sleep(0.3)
            priority.rise_when_rested()
    """)
    assert said.split() == ["True", "True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try being somebody without rights")
def test_without_rights_everything_stays_normal_and_the_reason_is_told() -> None:
    code = f"""
        import os
        from agent.serving.worker_scheduling import Priority
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        priority = Priority(1)
        print(priority.be_gentle(), priority.rise())
        priority.leave()
    """
    assert run(code) == "False normal: [Errno 1] Operation not permitted"
    assert OFF != REALTIME
