"""Send releases through the broker to devices that reach nothing else: what they ask for, piece by piece.

    Want --signature, device--> newest wish of each device --round robin, one rate for all--> Piece ...

Nothing is remembered: a device asks again for what did not arrive. Off by default, because brokers may charge
for it (`mqtt.chunks`).

I/O: network, disk, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fleet.store import devices
from fleet.store import releases as store
from shared import pieces, seal
from shared.errors import FlotillaError, RefusedError
from shared.identifiers import checked
from shared.messages import Piece, Want
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from fleet.releases.depot import Depot
    from fleet.releases.repository import Repository
    from fleet.settings import MqttSettings
    from fleet.store.database import Database
    from shared.mqtt_link import Incoming, MqttLink

logger = logging.getLogger(__name__)

#: Devices that may wait for their turn; whoever comes then asks again.
MAX_WAITING: Final = 1000


class Courier:
    """One task; each device has one wish at a time, its newest."""

    def __init__(
        self, *, database: Database, depot: Depot, repository: Repository, link: MqttLink, limits: MqttSettings
    ) -> None:
        self._database, self._depot, self._repository, self._link = database, depot, repository, link
        self._on, self._rate = limits.chunks == "on", limits.chunk_bytes_per_second
        self._wishes: dict[str, Incoming] = {}
        self._asked = asyncio.Event()
        self.sent_bytes = 0  # for /metrics

    def take(self, incoming: Incoming) -> None:
        """Something on a `want` topic. Checked when its turn comes."""
        device = incoming.topic.split("/")[2]
        if len(self._wishes) < MAX_WAITING or device in self._wishes:
            self._wishes[device] = incoming
            self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._asked.wait()
            while self._wishes:
                device = next(iter(self._wishes))
                await self._serve(self._wishes.pop(device))
            self._asked.clear()

    async def _serve(self, incoming: Incoming) -> None:
        try:
            want = await self._understood(incoming)
            data = await self._data(want) if self._on else None
            await self._send(want, data)
        except LinkDownError as error:
            logger.info("pieces not sent topic=%s reason=%s", incoming.topic, error)
        except FlotillaError as error:
            logger.warning("wish dropped topic=%s code=%s reason=%s", incoming.topic[:120], error.code, error)

    async def _understood(self, incoming: Incoming) -> Want:
        """What is wanted, if the device of the topic signed it and belongs to this fleet."""
        address = Address.parse(incoming.topic)
        async with self._database.read() as tx:
            device = await devices.get(tx, address.device)
        if device is None or device.lifecycle != "active":
            raise RefusedWishError(f"{address.device} is not a device that may ask")
        payload = seal.opened(incoming.payload, topic=incoming.topic, key=device.sign_key, required=True)
        want = Want.parse(payload)
        if want.device != device.id:
            raise RefusedWishError(f"{device.id} asks in the name of {want.device}")
        return want

    async def _data(self, want: Want) -> bytes | None:
        """What is called so; None when there is none."""
        if want.kind == "chunk":
            return await asyncio.to_thread(self._depot.get, want.name)
        async with self._database.read() as tx:
            if want.kind == "manifest":
                release = await store.by_digest(tx, checked("digest", want.name))
                return release.manifest if release is not None else None
            try:
                return await self._repository.document(tx, want.name)
            except RefusedError:
                return None

    async def _send(self, want: Want, data: bytes | None) -> None:
        topic = str(Address(want.device, Channel.PIECE))
        if not data:
            header = Piece(transfer=want.transfer, size_bytes=0)
            await self._link.publish(topic, pieces.encode(header, b""))
            return
        wanted = pieces.indices(want.missing, min(want.window, pieces.MAX_WINDOW))
        for payload in pieces.cut(data, wanted, transfer=want.transfer):
            await self._link.publish(topic, payload)
            self.sent_bytes += len(payload)
            await asyncio.sleep(len(payload) / self._rate)


class RefusedWishError(RefusedError):
    """Somebody asks for pieces who may not."""

    code = "E_WISH"
    default_remedy = "accept the device, or find out who else knows its broker password"
