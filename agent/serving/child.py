"""A child process of the daemon that is kept alive: started, listened to, started again when it dies.

I/O: disk, network, process, tasks, clock.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from agent.serving import channel, interpreter
from agent.serving.backoff import Backoff

logger = logging.getLogger(__name__)

_END_SECONDS: Final = 2.0


class Child:
    """One such process. `up` is set when `prepare` has ended, or by whoever hears that it is up."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        python: str | None,
        leash: int,
        arguments: Callable[[], tuple[Sequence[str], Sequence[int]]],
        heard: Callable[[bytes], None],
        gone: Callable[[], None],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.up = asyncio.Event()
        self.generation = 0
        self.channel: channel.Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.last_exit = ""
        self._module = module
        self._python = python
        self._leash = leash
        self._arguments = arguments
        self._heard = heard
        self._gone = gone
        self._prepare = prepare

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            born = loop.time()
            try:
                await self._live()
            except (OSError, channel.ChannelClosedError) as error:
                self.last_exit = str(error)
            lived = loop.time() - born
            delay = backoff.delay(lived)
            logger.warning("%s ended, it is started again exit=%r delay_s=%.1f", self.name, self.last_exit, delay)
            await asyncio.sleep(delay)

    def kill(self) -> None:
        """It does not do its work any more: have another one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live(self) -> None:
        ours, theirs = channel.pair()
        arguments, passed = self._arguments()
        try:
            process = await asyncio.create_subprocess_exec(
                *interpreter.command(
                    self._module, str(theirs.fileno()), str(self._leash), *arguments, python=self._python
                ),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._leash, *passed),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.channel = channel.Channel(ours)
        self._process = process
        self.generation += 1
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen(self.channel), name=f"{self.name} listen")
                preparing = group.create_task(self._get_ready(), name=f"{self.name} prepare")
                await listening
                preparing.cancel()
        finally:
            self.up.clear()
            self.channel.close()
            self.channel = None
            self._process = None
            self._gone()
            self.last_exit = await _end(process)

    async def _listen(self, from_child: channel.Channel) -> None:
        while (message := await from_child.receive()) is not None:
            self._heard(message)

    async def _get_ready(self) -> None:
        if self._prepare is None:
            return
        with contextlib.suppress(channel.ChannelClosedError):
            await self._prepare()
            self.up.set()


async def _end(process: asyncio.subprocess.Process) -> str:
    """Wait for a process whose socket is closed; kill it if it lingers. How it ended."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        status = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return exit_text(status)


def exit_text(status: int) -> str:
    """`exit 3`, or the name of the signal."""
    if status >= 0:
        return f"exit {status}"
    return _SIGNALS.get(-status, f"signal {-status}")


_SIGNALS: Final = {
    4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 27: "SIGPROF",
    31: "SIGSYS",
}  # fmt: skip
