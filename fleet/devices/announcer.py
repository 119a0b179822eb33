"""Tell devices about their newest assignment, and again when they, the broker or the manager were away.

I/O: network.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleet.devices import assigning
from fleet.store import devices, releases
from shared.messages import Ack
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.director import Director
    from fleet.store.database import Database
    from fleet.store.tables import Device
    from shared.mqtt_link import MqttLink

logger = logging.getLogger(__name__)


class Announcer:
    """Publishes what is stored; repeating it is harmless. Give it the link with `attach` before anything else."""

    def __init__(self, database: Database, director: Director) -> None:
        self._database = database
        self._director = director
        self._link: MqttLink | None = None
        self._owed: set[str] = set()

    def attach(self, link: MqttLink) -> None:
        """From now on publish over `link`."""
        self._link = link

    async def announce(self, device_id: str) -> None:
        """Publish the stored assignment of a device with today's timestamp, retained.

        While the broker is away the device is remembered; `resume` tells it. After a restart of the manager the
        device itself asks, by saying which assignment it knows. A withdrawn release is told only to who serves it.
        """
        async with self._database.read() as tx:
            device = await devices.get(tx, device_id)
            if device is None or device.assigned is None or device.lifecycle != "active":
                return
            withheld = await _withheld(tx, device)
            announcement = await self._director.announcement(tx, device.assigned)
        if withheld:
            logger.info("withheld, the release was withdrawn device=%s", device_id)
            await self.retract(device_id)
            return
        self._owed.add(device_id)
        if await self._publish(Address(device_id, Channel.ANNOUNCE), announcement.to_bytes(), retain=True):
            self._owed.discard(device_id)

    async def resume(self) -> None:
        """Tell everybody who could not be told. For each connect of the link."""
        for device_id in sorted(self._owed):
            await self.announce(device_id)

    async def acknowledge(self, device_id: str, ack: Ack) -> None:
        """Tell a device what is durable here. Lost: the device sends again, and is told again."""
        await self._publish(Address(device_id, Channel.ACK), ack.to_bytes(), retain=False)

    async def retract(self, device_id: str) -> None:
        """Remove the retained announcement of a device that shall hear nothing more."""
        self._owed.discard(device_id)
        await self._publish(Address(device_id, Channel.ANNOUNCE), b"", retain=True)

    async def _publish(self, address: Address, payload: bytes, *, retain: bool) -> bool:
        if self._link is None:
            return False
        try:
            await self._link.publish(str(address), payload, retain=retain)
        except LinkDownError as error:
            logger.info("not published topic=%s reason=%s", address, error)
            return False
        return True


async def _withheld(tx: AsyncSession, device: Device) -> bool:
    """True when the device was told of a release that was withdrawn since, and does not serve it."""
    found = assigning.assigned_release(device)
    if found is None or device.serving.get(found[0]) == found[1]:
        return False
    release = await releases.find(tx, *found)
    return release is not None and release.withdrawn_at is not None
