"""Tell waiting tasks that something was committed; what it was, they read from the database.

I/O: tasks.
"""

import asyncio


class Hub:
    """A counter that grows with every commit of interest. Belongs to one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._grown = asyncio.Event()

    @property
    def count(self) -> int:
        """What to hand to the first `wait`."""
        return self._count

    def wake(self) -> None:
        """Something was committed. Call it after the commit, never inside the transaction."""
        self._count += 1
        self._grown.set()
        self._grown = asyncio.Event()

    async def wait(self, seen: int, timeout: float) -> int:  # noqa: ASYNC109  # the contract of every waiter
        """The counter as soon as it differs from `seen`, or after `timeout` seconds."""
        if self._count == seen:
            try:
                async with asyncio.timeout(timeout):
                    await self._grown.wait()
            except TimeoutError:
                pass
        return self._count
