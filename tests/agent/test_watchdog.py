import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import watchdog
from agent.serving.supervisor import Endpoints

ANSWERED = b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"digits":"answered"}'
SILENT = b'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\n\r\n{"digits":"silent"}'


@contextlib.asynccontextmanager
async def front(answer: bytes, probes: asyncio.Semaphore | None = None) -> AsyncIterator[Endpoints]:
    """A listener that answers every request with `answer`; empty: it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if probes is not None:
            probes.release()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Endpoints("127.0.0.1", server.sockets[0].getsockname()[1], Path("/run/x.sock"))


@pytest.fixture
async def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[socket.socket]:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.bind(str(tmp_path / "notify"))
    door.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield door
    door.close()


async def words(door: socket.socket, number: int) -> list[bytes]:
    async with asyncio.timeout(10):
        return [await asyncio.get_running_loop().sock_recv(door, 100) for _ in range(number)]


@contextlib.asynccontextmanager
async def watching(endpoints: Endpoints) -> AsyncIterator[asyncio.Semaphore]:
    """Each time that a new front is asked for counts."""
    replaced = asyncio.Semaphore(0)
    task = asyncio.create_task(watchdog.run(endpoints, replaced.release))
    try:
        yield replaced
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_systemd_is_told_while_requests_get_through(heard: socket.socket) -> None:
    async with front(ANSWERED) as endpoints, watching(endpoints) as replaced:
        assert await words(heard, 4) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert replaced.locked()


async def test_a_silent_worker_is_told_by_saying_nothing(heard: socket.socket) -> None:
    probes = asyncio.Semaphore(0)
    async with front(SILENT, probes) as endpoints, watching(endpoints) as replaced:
        async with asyncio.timeout(10):
            for _ in range(4):
                await probes.acquire()
        with pytest.raises(BlockingIOError):
            heard.recv(100)
        assert replaced.locked(), "the front answers"


async def test_a_front_that_does_not_answer_is_replaced(heard: socket.socket) -> None:
    async with front(b"") as endpoints, watching(endpoints) as replaced, asyncio.timeout(10):
        await replaced.acquire()
        await replaced.acquire()
    with pytest.raises(BlockingIOError):
        heard.recv(100)


async def test_a_front_that_hangs_is_replaced_when_the_probes_time_is_over(
    heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        endpoints = Endpoints("127.0.0.1", hangs.getsockname()[1], Path("/run/x.sock"))
        async with watching(endpoints) as replaced, asyncio.timeout(10):
            await replaced.acquire()


def test_addresses_are_written_for_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    watchdog.write_endpoints(path, "dev-a", Endpoints("::1", 8600, Path("/run/x.sock"), "[::1]:8601"))
    assert json.loads(path.read_text()) == {
        "id": "dev-a",
        "http": "http://[::1]:8600",
        "grpc": "[::1]:8601",
        "uds": "/run/x.sock",
    }
    assert path.stat().st_mode & 0o777 == 0o644
