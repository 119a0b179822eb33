"""The daemon's control socket: `flotilla-agent status`, `slots` and `rollback` talk to it.

    one line of JSON in:  {"do": "status"}, or with more, such as {"do": "rollback", "model": "digits"}
    one line of JSON out: {"ok": true, "result": {...}} or {"ok": false, "code", "detail", "remedy"}

Only the daemon's own user may open it (0600 in a folder that is 0700).

I/O: network, disk, tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from agent.errors import ControlError, NotRunningError, RemoteError
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    Document = dict[str, Any]  # what is asked; what is printed by --json, as it is
    Action = Callable[[Document], Awaitable[Document]]

SOCKET: Final = "control.sock"
MAX_LINE_BYTES: Final = 1024 * 1024
REQUEST_TIMEOUT_SECONDS: Final = 5.0


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """The socket's path, short enough for the kernel (108 bytes) however deep `folder` lies."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


async def serve(folder: Path, actions: Mapping[str, Action]) -> None:
    """Answer on the socket in `folder` until cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                line = await reader.readline()
            writer.write(json.dumps(await _perform(actions, line)).encode() + b"\n")
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                await writer.drain()
        except (TimeoutError, OSError, ValueError):  # ValueError: a line without end
            return
        finally:
            writer.close()

    (folder / SOCKET).unlink(missing_ok=True)
    with _reachable(folder) as path:
        server = await asyncio.start_unix_server(answer, path, limit=MAX_LINE_BYTES)
    (folder / SOCKET).chmod(0o600)
    async with server:
        await server.serve_forever()


async def _perform(actions: Mapping[str, Action], line: bytes) -> Document:
    try:
        document = json.loads(line)
        action = actions.get(str(document["do"]))
        if action is None:
            raise ControlError(f"the daemon does not know {document['do']!r}")
        return {"ok": True, "result": await action(document)}
    except FlotillaError as error:
        return {"ok": False, "code": error.code, "detail": error.detail, "remedy": error.remedy}
    except (ValueError, TypeError, KeyError):
        return {"ok": False, "code": ControlError.code, "detail": "not a request", "remedy": ""}


def ask(folder: Path, what: str, *, timeout_seconds: float = 120.0, more: Document | None = None) -> Document:
    """The daemon's answer to `what`, with `more` of what is asked.

    Raises:
        NotRunningError: no daemon answers in time.
        RemoteError: it refuses.
        ControlError: its answer cannot be understood.
    """
    try:
        with _reachable(folder) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            wire.settimeout(timeout_seconds)
            wire.connect(path)
            wire.sendall(json.dumps({"do": what, **(more or {})}).encode() + b"\n")
            answer = _line(wire)
    except OSError as error:
        raise NotRunningError(f"no agent answers in {folder}: {error.strerror or error}") from None
    try:
        document = json.loads(answer)
        if document["ok"]:
            return dict(document["result"])
        refused = RemoteError(f"{document['detail']} ({document['code']})", remedy=str(document["remedy"]))
    except (ValueError, TypeError, KeyError):
        raise ControlError("the daemon gave an answer that is none") from None
    raise refused


def _line(wire: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= MAX_LINE_BYTES:
        block = wire.recv(65536)
        if not block:
            break
        received += block
    return bytes(received)
