import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.errors import ControlError, NotRunningError, RemoteError
from shared.errors import BadInputError


async def status(_: dict[str, Any]) -> dict[str, Any]:
    return {"device": "dev-a", "text": "é\n"}


async def echo(asked: dict[str, Any]) -> dict[str, Any]:
    return {"model": asked.get("model")}


async def refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise BadInputError("no other version", remedy="publish one")


def _ready(path: Path) -> bool:
    return path.exists() and path.stat().st_mode & 0o777 == 0o600


@contextlib.asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[None]:
    task = asyncio.create_task(control.serve(folder, {"status": status, "echo": echo, "rollback": refuse}))
    async with asyncio.timeout(5):
        while not _ready(folder / control.SOCKET):  # noqa: ASYNC110 (a file)
            await asyncio.sleep(0.005)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_comes_back_whole(tmp_path: Path) -> None:
    async with daemon(tmp_path):
        assert await asyncio.to_thread(control.ask, tmp_path, "status") == await status({})
        assert await asyncio.to_thread(partial(control.ask, tmp_path, "echo", more={"model": "digits"})) == {
            "model": "digits"
        }


async def test_a_refusal_keeps_its_code_and_remedy(tmp_path: Path) -> None:
    async with daemon(tmp_path):
        with pytest.raises(RemoteError, match="no other version \\(E_BAD_INPUT\\)") as caught:
            await asyncio.to_thread(control.ask, tmp_path, "rollback")
        assert caught.value.remedy == "publish one"
        with pytest.raises(RemoteError, match="does not know 'dance'"):
            await asyncio.to_thread(control.ask, tmp_path, "dance")


async def test_only_the_owner_may_ask_and_a_stale_socket_is_no_hindrance(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / control.SOCKET))
    with pytest.raises(NotRunningError):
        control.ask(tmp_path, "status")
    assert not _ready(tmp_path / control.SOCKET)
    async with daemon(tmp_path):
        assert (await asyncio.to_thread(control.ask, tmp_path, "status"))["device"] == "dev-a"


async def test_a_folder_may_lie_deeper_than_a_socket_name_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    async with daemon(folder):
        assert (await asyncio.to_thread(control.ask, folder, "status"))["device"] == "dev-a"


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b'{"do": 1}\n', b"\xff\n", b'"x"\n'])
async def test_any_line_gets_an_answer(line: bytes, tmp_path: Path) -> None:
    async with daemon(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / control.SOCKET)
        writer.write(line)
        async with asyncio.timeout(5):
            answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
    assert answer["ok"] is False
    assert answer["code"] == ControlError.code


def test_no_daemon_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError) as caught:
        control.ask(tmp_path / "none", "status")
    assert "flotilla-agent run" in caught.value.remedy
