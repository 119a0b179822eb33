"""Birth, heartbeat and last will: what the manager sees of this device between two reports.

I/O: tasks.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shared.messages import DeviceState
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.clock import Clock
    from shared.mqtt_link import MqttLink

logger = logging.getLogger(__name__)

#: How long a change may go unnoticed if nobody pokes.
LOOK_SECONDS: Final = 1.0


def last_will(device: str, boot: str) -> tuple[str, bytes]:
    """Topic and payload that the broker publishes when this device goes."""
    return str(Address(device, Channel.STATE)), DeviceState(device=device, online=False, boot=boot).to_bytes()


class Presence:
    """Publishes `describe()` at each connect, at each change, and every `heartbeat`."""

    def __init__(
        self, link: MqttLink, describe: Callable[[], DeviceState], *, heartbeat: timedelta, clock: Clock
    ) -> None:
        self._link, self._describe, self._clock = link, describe, clock
        self._heartbeat_seconds = heartbeat.total_seconds()
        self._changed = asyncio.Event()
        self._told: DeviceState | None = None
        self._told_at = float("-inf")

    def poke(self) -> None:
        """Something may have changed: look now."""
        self._changed.set()

    async def birth(self) -> None:
        """Say that we are here. For each connect.

        Raises:
            LinkDownError: the connection went again; the next connect says it.
        """
        self._told = None
        await self._tell(self._describe())

    async def run(self) -> None:
        """Watch for changes and beat, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, self._heartbeat_seconds)):
                    await self._changed.wait()
            except TimeoutError:
                pass  # time to look by ourselves
            self._changed.clear()
            state = self._describe()
            due = self._clock.monotonic() - self._told_at >= self._heartbeat_seconds
            if not self._link.connected or self._told is None or (state == self._told and not due):
                continue  # the birth comes first
            try:
                await self._tell(state)
            except LinkDownError as error:
                logger.debug("state not published reason=%s", error)

    async def _tell(self, state: DeviceState) -> None:
        stamped = state.model_copy(update={"at": self._clock.now()})
        topic = str(Address(state.device, Channel.STATE))
        await self._link.publish(topic, stamped.to_bytes(), retain=True)
        self._told, self._told_at = state, self._clock.monotonic()
