"""Wait for code that blocks, but never for longer than it may take.

Each call has a thread of its own that does not keep the process alive: code that hangs for ever takes one thread
with it, not a place among the few threads that others need.

I/O: tasks.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], seconds: float) -> T:
    """What `work` returns or raises.

    Raises:
        TimeoutError: it did not end in time. It goes on, and nobody listens.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]  # None only where T is

    def run() -> None:
        result, raised = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
            raised = error
        with suppress(RuntimeError):  # the manager ended meanwhile
            loop.call_soon_threadsafe(tell, result, raised)

    threading.Thread(target=run, name="alert-sender", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await ended
