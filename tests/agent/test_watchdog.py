import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import watchdog
from agent.serving.supervisor import Endpoints


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
async def watching(endpoints: Endpoints) -> AsyncIterator[None]:
    task = asyncio.create_task(watchdog.run(endpoints))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_systemd_is_told_while_the_endpoint_answers(heard: socket.socket) -> None:
    async with front(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as endpoints, watching(endpoints):
        assert await words(heard, 4) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"])
async def test_systemd_is_not_told_when_it_does_not(answer: bytes, heard: socket.socket) -> None:
    probes = asyncio.Semaphore(0)
    async with front(answer, probes) as endpoints, watching(endpoints):
        assert await words(heard, 1) == [b"READY=1"]
        async with asyncio.timeout(10):
            for _ in range(4):
                await probes.acquire()
        with pytest.raises(BlockingIOError):
            heard.recv(100)


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
