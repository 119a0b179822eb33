"""The daemon's side of the fork server: workers are ordered here, and here it is learnt how they ended.

I/O: disk, network, process, tasks.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Iterable
from typing import Any, Final

from agent.serving.channel import ChannelClosedError
from agent.serving.child import Child, exit_text
from agent.serving.providers import Runtime

logger = logging.getLogger(__name__)

_EXIT_SECONDS: Final = 1.0  # for the news of a death after its socket was closed


class Forks:
    """Starts and ends workers through the fork server."""

    def __init__(self, *, python: str | None, leash: int) -> None:
        self.child = Child(
            "fork server",
            "agent.serving.fork_server",
            python=python,
            leash=leash,
            arguments=lambda: ((), ()),
            heard=self._heard,
            gone=self._gone,
        )
        self._number = 0
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[str]] = {}
        self._handles: dict[int, int] = {}  # process descriptors: a process id may come back, these do not
        self._unconfined: set[str] = set()  # what was logged
        self._runtime = Runtime()

    async def spawn(self, job: dict[str, Any], control: socket.socket) -> int:
        """Process id of a new worker that holds `control` and does `job`.

        Raises:
            ChannelClosedError: the fork server died meanwhile; it is being restarted.
        """
        await self.child.up.wait()
        if self.child.channel is None:
            raise ChannelClosedError("the fork server just ended")
        self._number += 1
        number = self._number
        spawned: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._spawning[number] = spawned
        try:
            await self.child.channel.send({"spawn": {**job, "number": number}}, [control.fileno()])
            return await spawned
        finally:
            self._spawning.pop(number, None)

    async def runtime(self) -> Runtime:
        """What the newest fork server found."""
        await self.child.up.wait()
        return self._runtime

    def kill(self, pid: int) -> None:
        """End a worker of ours, even when the fork server that made it is gone."""
        handle = self._handles.get(pid)
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)

    def unconfined(self, missing: Iterable[str]) -> None:
        """A worker says what its sandbox could not take away; it is logged once."""
        new = set(missing) - self._unconfined
        self._unconfined |= new
        if new:
            logger.warning("this kernel confines workers less than it could missing=%r", "; ".join(sorted(new)))

    def forget(self, pid: int) -> None:
        """The worker has ended."""
        self._exits.pop(pid, None)
        handle = self._handles.pop(pid, None)
        if handle is not None:
            os.close(handle)

    async def exit_of(self, pid: int) -> str:
        """How the worker `pid`, whose socket is closed, ended."""
        found = self._exits.get(pid)
        if found is None:
            return "lost"
        # Whoever asks may be cancelled already: then limits of older Python 3.11 end in that instead of a TimeoutError.
        done, _ = await asyncio.wait([found], timeout=_EXIT_SECONDS)
        return found.result() if done else "lost"

    def _heard(self, message: bytes) -> None:
        news = json.loads(message)
        if "up" in news:
            logger.info("fork server is up python=%s", news["up"])
            self._runtime = Runtime(tuple(news["providers"]), tuple(news["runtime"]))
            self.child.up.set()
        elif "spawned" in news:
            self._spawned(news["spawned"], news["pid"])
        else:
            ended = self._exits.get(news["exited"])
            if ended is not None and not ended.done():
                ended.set_result(exit_text(news["status"]))

    def _spawned(self, number: int, pid: int) -> None:
        self.forget(pid)
        self._exits[pid] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(ProcessLookupError):
            self._handles[pid] = os.pidfd_open(pid)
        waiting = self._spawning.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(pid)
        else:  # whoever asked has given up
            self.kill(pid)
            self.forget(pid)

    def _gone(self) -> None:
        for waiting in self._spawning.values():
            if not waiting.done():
                waiting.set_exception(ChannelClosedError("the fork server ended"))
        for ended in self._exits.values():
            if not ended.done():
                ended.set_result("lost")
