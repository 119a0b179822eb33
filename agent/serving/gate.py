"""The daemon's side of the front: orders with confirmation, and what the front tells.

I/O: disk, network, process, tasks, clock.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from agent.serving import arena
from agent.serving.channel import ChannelClosedError
from agent.serving.child import Child
from agent.serving.dispatch import Key
from agent.serving.observations import Observation, unpack
from agent.serving.worker_scheduling import OFF, REALTIME

logger = logging.getLogger(__name__)

_ORDER_SECONDS: Final = 5.0
_LEAVE_SECONDS: Final = 5.0  # for requests that are under way when the agent ends
_MOMENT_SECONDS: Final = 5.0


class Lent:
    """Whether there are regions of shared memory. News of a worker's death may come after that of its regions' end."""

    def __init__(self) -> None:
        self._count = 0
        self._until = -_MOMENT_SECONDS

    def told(self, count: int) -> None:
        if self._count and not count:
            self._until = time.monotonic()
        self._count = count

    @property
    def recently(self) -> bool:
        return self._count > 0 or time.monotonic() - self._until < _MOMENT_SECONDS


class Gate:
    """The front as the daemon sees it. A new front is told everything by `prepare` before it opens."""

    def __init__(
        self,
        *,
        leash: int,
        listeners: Sequence[int],
        settings: dict[str, Any],
        prepare: Callable[[], Awaitable[None]],
        observe: Callable[[Sequence[Observation]], None],
        hung: Callable[[Key], None],
        shadowed: Callable[[Key, dict[str, Any]], None],
    ) -> None:
        self._listeners = listeners
        self._settings = settings
        self._observe = observe
        self._hung = hung
        self._shadowed = shadowed
        self._number = 0
        self._orders: dict[int, asyncio.Future[None]] = {}
        self._draining: dict[Key, asyncio.Future[None]] = {}
        self._leaving: asyncio.Future[None] | None = None
        self.arena = -1
        self._lent = Lent()
        self.child = Child(
            "front",
            "agent.serving.front",
            python=None,
            leash=leash,
            arguments=self._arguments,
            heard=self._heard,
            gone=self._gone,
            prepare=prepare,
        )

    @property
    def generation(self) -> int:
        return self.child.generation

    async def order(self, do: str, descriptors: Sequence[int] = (), **content: Any) -> None:
        """Have the front do something; returns when it is done.

        Raises:
            ChannelClosedError: the front died or does not answer. The next one will be told everything.
        """
        target = self.child.channel
        if target is None:
            raise ChannelClosedError("the front is being restarted")
        self._number += 1
        number = self._number
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders[number] = done
        try:
            await target.send({"order": number, "do": do, **content}, descriptors)
            async with asyncio.timeout(_ORDER_SECONDS):
                await done
        except TimeoutError:
            self.child.kill()
            raise ChannelClosedError("the front does not answer") from None
        finally:
            self._orders.pop(number, None)

    async def drain(self, key: Key, *, timeout_seconds: float) -> bool:
        """Have the version answer what it holds and get nothing new. False when it took too long."""
        drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining[key] = drained
        try:
            await self.order("detach", model=key[0], version=key[1])
            async with asyncio.timeout(timeout_seconds):
                await drained
        except TimeoutError:
            return False
        except ChannelClosedError:
            return True  # a new front is not told about it
        finally:
            self._draining.pop(key, None)
        return True

    @property
    def lent(self) -> bool:
        """Whether clients share memory with workers, or did until a moment ago."""
        return self._lent.recently

    async def leave(self) -> None:
        """Have the front take no more connections and answer what it has; returns when it did, or in a few seconds."""
        self._leaving = asyncio.get_running_loop().create_future()
        with contextlib.suppress(ChannelClosedError, TimeoutError):
            await self.order("leave")
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._leaving

    def replace(self) -> bool:
        """The front does not answer: have another one. False while one is on its way already."""
        if not self.child.up.is_set():
            return False
        logger.error("the front does not answer, it is replaced")
        self.child.kill()
        return True

    def close(self) -> None:
        if self.arena >= 0:
            os.close(self.arena)
            self.arena = -1

    def _arguments(self) -> tuple[Sequence[str], Sequence[int]]:
        self.close()  # whoever still writes into the old one disturbs nobody
        self.arena = arena.create(self._settings["queue_limit"])
        numbers = [str(entry) for entry in self._listeners]
        return [str(self.arena), json.dumps(self._settings), *numbers], [self.arena, *self._listeners]

    def _heard(self, message: bytes) -> None:
        if not message.startswith(b"{"):
            self._observe(unpack(message))
            return
        news = json.loads(message)
        waiting: asyncio.Future[None] | None = None
        if "done" in news:
            waiting = self._orders.get(news["done"])
        elif "drained" in news:
            waiting = self._draining.get((news["drained"][0], news["drained"][1]))
        elif "left" in news:
            waiting = self._leaving
        elif "hang" in news:
            self._hung((news["hang"][0], news["hang"][1]))
        elif "shadow" in news:
            self._shadowed((news["shadow"][0], news["shadow"][1]), news["counts"])
        elif "class" in news:
            _say_class(news["class"])
        elif "regions" in news:
            self._lent.told(news["regions"])
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _gone(self) -> None:
        self._lent.told(0)
        for waiting in (*self._orders.values(), *self._draining.values(), self._leaving):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ChannelClosedError("the front ended"))


def _say_class(scheduled: str) -> None:
    if scheduled in (REALTIME, OFF):
        logger.info("front is up class=%s", scheduled)
    else:
        logger.warning(
            "front and workers run like any other program, so answers may take some milliseconds longer while a model"
            " loads; grant LimitRTPRIO=2 and LimitNICE=+0 (systemd) or set serving.realtime: off class=%r",
            scheduled,
        )
