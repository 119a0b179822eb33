"""What the manager says to this device: announcements to the update driver, acks to the uplink.

A message is acknowledged after its effect is durable; what can never be understood is acknowledged
at once, so that it does not come back.

I/O: network.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shared.errors import RefusedError, UnavailableError
from shared.messages import Ack, Announcement
from shared.mqtt_link import Incoming
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.telemetry.uplink import Uplink
    from agent.update.driver import Driver
    from shared.mqtt_link import MqttLink

logger = logging.getLogger(__name__)


class Inbox:
    """Reads the link, one message after the other."""

    def __init__(
        self,
        link: MqttLink,
        *,
        device: str,
        driver: Driver,
        uplink: Uplink,
        piece: Callable[[bytes], None] | None = None,  # who waits for pieces of a release
    ) -> None:
        self._link, self._device, self._driver, self._uplink = link, device, driver, uplink
        self._piece = piece

    async def run(self) -> None:
        """Until cancelled."""
        async for incoming in self._link.messages():
            try:
                await self.take(incoming)
            except RefusedError as error:
                logger.warning("message dropped topic=%s code=%s reason=%s", incoming.topic, error.code, error)
            except UnavailableError as error:  # not acknowledged: the broker sends it again
                logger.warning("message waits topic=%s code=%s reason=%s", incoming.topic, error.code, error)
                continue
            incoming.ack()

    async def take(self, incoming: Incoming) -> None:
        """Do what the message says; its effect is durable at return.

        Raises:
            RefusedError: it cannot be understood, or is not for us.
            UnavailableError: not now.
        """
        address = Address.parse(incoming.topic)
        if address.device != self._device:
            logger.warning("message for another device topic=%s", incoming.topic)
        elif address.channel is Channel.ANNOUNCE:
            if incoming.payload:  # an empty retained message only clears the topic
                await self._driver.announce(Announcement.parse(incoming.payload))
        elif address.channel is Channel.ACK:
            self._uplink.acknowledged(Ack.parse(incoming.payload))
        elif address.channel is Channel.PIECE and self._piece is not None:
            self._piece(incoming.payload)
        else:
            logger.info("channel not used yet topic=%s", incoming.topic)
