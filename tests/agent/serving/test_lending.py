"""Shared memory through the whole endpoint: which doors offer it, and clients that misuse it."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.serving.supervisor import Sample, WorkerDied
from shared.shadow import Terms
from tests.agent.serving.kit import TOTAL, WIDE, Digits, Running, endpoint, model_file, wide_model, worker_pids

MEMORY = Path("/dev/shm")


def http(connection: socket.socket, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    """One request on a connection that stays open."""
    body = b"" if document is None else json.dumps(document).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head_text, _, content = data.partition(b"\r\n\r\n")
    length = int(head_text.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(content) < length:
        content += connection.recv(65536)
    return int(head_text.split()[1]), json.loads(content) if content else None


@contextmanager
def connected(running: Running, door: str) -> Iterator[socket.socket]:
    if door == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(running.endpoints.uds_path))
    else:
        connection = socket.create_connection(("127.0.0.1", running.endpoints.http_port))
    connection.settimeout(20)
    with connection:
        yield connection


@contextmanager
def memory(content: bytes) -> Iterator[str]:
    key = f"lending-test-{os.getpid()}"
    path = MEMORY / key
    path.write_bytes(content)
    try:
        yield key
    finally:
        path.unlink(missing_ok=True)


def place(key: str, size: int, offset: int = 0) -> dict[str, Any]:
    return {"key": f"/{key}", "offset": offset, "byte_size": size}


def request(shape: list[int], size: int, name: str = "image", datatype: str = "FP32") -> dict[str, Any]:
    parameters = {"shared_memory_region": "frame", "shared_memory_byte_size": size}
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}]}


REGISTER = "/v2/systemsharedmemory/region/frame/register"
STATUS = "/v2/systemsharedmemory/status"
INFER = "/v2/models/digits/infer"


@pytest.fixture
async def running(tmp_path: Path, digits_model: Path) -> AsyncIterator[Running]:
    async with endpoint(tmp_path) as found:
        await found.serving.load(model_file(digits_model, "1.0.0"))
        await found.serving.route("digits", "1.0.0")
        yield found


@pytest.mark.parametrize(
    ("offer", "unix", "tcp"),
    [
        ("off", "is not offered by this endpoint", "is not offered by this endpoint"),
        ("unix", None, "is offered on the Unix socket only"),
        ("loopback", None, None),
    ],
)
async def test_the_setting_says_which_door_takes_memory(
    tmp_path: Path, digits: Digits, digits_model: Path, offer: str, unix: str | None, tcp: str | None
) -> None:
    def check(running: Running) -> None:
        row = digits.images[:1].tobytes()
        for door, refused in (("unix", unix), ("tcp", tcp)):
            with connected(running, door) as connection, memory(row) as key:
                status, document = http(connection, "POST", REGISTER, place(key, len(row)))
                if refused is not None:
                    assert status == 400
                    assert refused in document["error"]
                    assert http(connection, "GET", STATUS) == (200, [])
                    continue
                assert (status, document) == (200, None)
                status, document = http(connection, "POST", INFER, request([1, 1, 8, 8], len(row)))
                assert status == 200, document
                assert int(np.argmax(document["outputs"][0]["data"])) == digits.labels[0]
                assert http(connection, "POST", "/v2/systemsharedmemory/unregister") == (200, None)

    async with endpoint(tmp_path, shared_memory=offer) as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        await asyncio.to_thread(check, running)


async def test_regions_outlive_the_worker_and_reach_new_versions(
    running: Running, digits: Digits, digits_model: Path
) -> None:
    row = digits.images[:1].tobytes()
    with connected(running, "unix") as connection, memory(row) as key:
        assert (await asyncio.to_thread(http, connection, "POST", REGISTER, place(key, len(row))))[0] == 200
        os.kill(worker_pids()[0], signal.SIGKILL)
        await running.until(lambda: WorkerDied("digits", "1.0.0", "SIGKILL") in running.seen)
        status, _ = await asyncio.to_thread(http, connection, "POST", INFER, request([1, 1, 8, 8], len(row)))
        assert status == 200
        await running.serving.load(model_file(digits_model, "2.0.0"))
        await running.serving.route("digits", "2.0.0")
        status, document = await asyncio.to_thread(http, connection, "POST", INFER, request([1, 1, 8, 8], len(row)))
        assert (status, document["model_version"]) == (200, "2.0.0")


async def test_a_candidate_in_the_shadow_never_looks_into_memory_of_clients(
    running: Running, digits: Digits, digits_model: Path
) -> None:
    row = digits.images[:1]
    sent = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": row.ravel().tolist()}
    terms, changed = Terms(share=1.0, hold_seconds=10.0), asyncio.Event()
    async with running.serving.shadowing(model_file(digits_model, "2.0.0"), terms, changed.set) as shadow:
        with connected(running, "unix") as connection, memory(row.tobytes()) as key:
            for path, document in (
                (REGISTER, place(key, row.nbytes)),
                (INFER, request([1, 1, 8, 8], row.nbytes)),
                (INFER, {"inputs": [sent]}),
            ):
                assert (await asyncio.to_thread(http, connection, "POST", path, document))[0] == 200
            await asyncio.wait_for(changed.wait(), 20)
    found = shadow.figures
    assert (found.requests, found.agreed, found.failed, found.dropped) == (1, 1, 0, 0)


async def test_what_was_seen_in_shared_memory_is_what_was_answered(running: Running, digits: Digits) -> None:
    row = digits.images[:1]
    with connected(running, "unix") as connection, memory(row.tobytes()) as key:
        for path, document in ((REGISTER, place(key, row.nbytes)), (INFER, request([1, 1, 8, 8], row.nbytes))):
            assert (await asyncio.to_thread(http, connection, "POST", path, document))[0] == 200
        await running.until(lambda: any(isinstance(seen, Sample) for seen in running.seen))
    (sample,) = [seen for seen in running.seen if isinstance(seen, Sample)]
    assert sample.features["input.brightness"] == pytest.approx(row.mean())


async def test_a_client_that_cuts_its_memory_short_is_told_so(running: Running, digits: Digits) -> None:
    row = digits.images[:1].tobytes()
    workers = worker_pids()
    with connected(running, "unix") as connection, memory(row) as key:
        assert (await asyncio.to_thread(http, connection, "POST", REGISTER, place(key, len(row))))[0] == 200
        os.truncate(MEMORY / key, 8)
        status, document = await asyncio.to_thread(http, connection, "POST", INFER, request([1, 1, 8, 8], len(row)))
        assert status == 400
        assert "was made shorter by its client: register it again" in document["error"]
    assert worker_pids() == workers


async def test_a_worker_that_dies_of_a_clients_memory_is_not_lost_to_others_nor_held_against_the_version(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    """The cut comes in the middle of a run, where no look at the size helps."""
    async with endpoint(tmp_path, request_timeout_seconds=20) as running:
        wide = model_file(wide_model(tmp_path), "1", model="wide", inputs=WIDE, outputs=TOTAL)
        for file in (model_file(digits_model, "1.0.0"), wide):
            await running.serving.load(file)
            await running.serving.route(file.model, file.version)
        size = 4 * 1024 * 1024
        ask = request([size // 4], size, name="x")
        ask["inputs"].append({"name": "count", "shape": [], "datatype": "INT64", "data": [1_500_000]})
        where = "/v2/models/wide/infer"
        with connected(running, "unix") as connection, memory(bytes(size)) as key:
            assert (await asyncio.to_thread(http, connection, "POST", REGISTER, place(key, size)))[0] == 200
            before = sum(map(busy_seconds, worker_pids()))
            asked = asyncio.ensure_future(asyncio.to_thread(http, connection, "POST", where, ask))
            await running.until(lambda: sum(map(busy_seconds, worker_pids())) > before + 0.1)  # it counts
            os.truncate(MEMORY / key, 0)
            status, document = await asked
            assert status == 500
            assert "its shared memory must be registered again" in document["error"]
            status, document = await asyncio.to_thread(http, connection, "POST", where, ask)
            assert status == 400  # by the next worker, which lives
            assert "Unable to find shared memory region: 'frame'" in document["error"]
            row = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}]}
            assert (await asyncio.to_thread(http, connection, "POST", INFER, row))[0] == 200
        assert not any(isinstance(seen, WorkerDied) for seen in running.seen)


def busy_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
