"""What devices say, stored before it is acknowledged.

    link.messages -> signature -> parse -> one transaction for all that wait -> MQTT ack -> down/ack -> hub

A device sends everything again that no `down/ack` covers, in order: what was stored before is dropped, and what comes
after a gap is left for the next round (go-back-N).

I/O: tasks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError, OperationalError

from fleet.store import devices, windows
from fleet.telemetry import heard
from fleet.telemetry.rate import Buckets
from shared import seal
from shared.errors import BadInputError, FlotillaError
from shared.messages import Ack, DeviceState, Queued, TelemetryWindow, UpdateReport
from shared.seal import SealError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.devices.announcer import Announcer
    from fleet.hub import Hub
    from fleet.settings import MqttSettings
    from fleet.store.database import Database
    from fleet.store.tables import Device
    from shared.clock import Clock
    from shared.mqtt_link import Incoming, MqttLink

logger = logging.getLogger(__name__)

#: Messages that share one commit.
BATCH: Final = 64


@dataclass(slots=True)
class Owed:
    """What is to be said once the transaction is durable."""

    durable: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)  # device, stream -> kind -> sequence
    moved: set[tuple[str, str, str]] = field(default_factory=set)  # device, stream, kind: not yet written
    newest: dict[tuple[str, str], TelemetryWindow] = field(default_factory=dict)  # of each device and stream
    announce: set[str] = field(default_factory=set)
    changed: bool = False


class Ingest:
    """The only consumer of the manager's link."""

    def __init__(
        self, *, database: Database, link: MqttLink, announcer: Announcer, hub: Hub, clock: Clock, limits: MqttSettings
    ) -> None:
        self._database, self._link, self._announcer, self._hub, self._clock = database, link, announcer, hub, clock
        self._signed = limits.require_signatures
        self._buckets = Buckets(rate=limits.messages_per_second, burst=limits.burst_messages)
        self.stored = 0  # messages, for /metrics
        self.dropped = 0
        self.forged = 0  # of these: signed by another key, or not at all

    async def run(self) -> None:
        """Until cancelled. A database that fails ends it, and nothing of that round was acknowledged."""
        messages = self._link.messages()
        while True:
            batch = await self._take(messages)
            owed = await self.store(batch)
            for incoming in batch:
                incoming.ack()
            await self._tell(owed)

    async def _take(self, messages: AsyncIterator[Incoming]) -> list[Incoming]:
        batch = [await anext(messages)]
        while self._link.backlog and len(batch) < BATCH:
            batch.append(await anext(messages))
        return batch

    async def store(self, batch: list[Incoming]) -> Owed:
        """Make `batch` durable; what is to be said afterwards."""
        owed, now = Owed(), self._clock.now()
        async with self._database.write() as tx:
            for incoming in batch:
                try:
                    async with tx.begin_nested():
                        await self._one(tx, incoming, owed, now)
                except BadInputError as error:
                    self.dropped += 1
                    self.forged += isinstance(error, SealError)
                    logger.warning("message dropped topic=%s reason=%s", incoming.topic[:120], error)
                except (DBAPIError, OverflowError) as error:
                    if isinstance(error, OperationalError):
                        raise  # the disk, not the message
                    self.dropped += 1
                    logger.exception("message cannot be stored topic=%s", incoming.topic[:120])
            await _remember(tx, owed, now)
        return owed

    async def _one(self, tx: AsyncSession, incoming: Incoming, owed: Owed, now: datetime) -> None:
        if not incoming.payload:
            return  # a retained message was removed
        address = Address.parse(incoming.topic)
        device = await devices.get(tx, address.device)
        if device is None or device.lifecycle == "revoked":
            raise BadInputError(f"{address.device} is not a device that may speak")
        if not self._buckets.take(device.id, self._clock.monotonic()):
            raise BadInputError(f"{device.id} speaks too fast")
        match address.channel:
            case Channel.STATE:
                await self._state(tx, device, incoming, owed, now)
            case Channel.REPORT:
                await self._queued(tx, device, UpdateReport.parse(self._opened(device, incoming)), owed, now)
            case Channel.TELEMETRY:
                await self._queued(tx, device, TelemetryWindow.parse(self._opened(device, incoming)), owed, now)
            case _:
                raise BadInputError("devices do not speak on this channel")
        self.stored += 1

    def _opened(self, device: Device, incoming: Incoming) -> bytes:
        """The payload, if it is signed by the key that this device enrolled with."""
        return seal.opened(incoming.payload, topic=incoming.topic, key=device.sign_key, required=self._signed)

    async def _state(self, tx: AsyncSession, device: Device, incoming: Incoming, owed: Owed, now: datetime) -> None:
        state = DeviceState.parse(incoming.payload)
        _same_device(state.device, device)
        owed.changed |= await heard.state(tx, device, state, retained=incoming.retained, now=now)
        if state.online and device.lifecycle == "active" and device.assigned and state.assignment < device.assignment:
            owed.announce.add(device.id)

    async def _queued(
        self, tx: AsyncSession, device: Device, message: UpdateReport | TelemetryWindow, owed: Owed, now: datetime
    ) -> None:
        _same_device(message.device, device)
        _bounded(message)
        if device.lifecycle != "active":
            return  # it stays in the device's outbox until somebody accepts the device
        owed.changed |= await heard.sign_of_life(tx, device, now=now)
        kind, name = "report" if isinstance(message, UpdateReport) else "telemetry", (device.id, message.stream)
        if name not in owed.durable:
            owed.durable[name] = await devices.durable(tx, *name)
        durable = owed.durable[name].get(kind, 0)
        if message.sequence <= durable or message.after > durable:
            return  # had it; or a gap: the ack says from where to send again
        if isinstance(message, UpdateReport):
            windows.insert_report(tx, message, now=now)
            await heard.report(tx, message, now=now)
        else:
            windows.insert_window(tx, message, now=now)
            owed.newest[name] = message
        await tx.flush()
        owed.durable[name][kind] = message.sequence
        owed.moved.add((*name, kind))
        owed.changed = True

    async def _tell(self, owed: Owed) -> None:
        if owed.changed:
            self._hub.wake()
        acks = (
            (device_id, Ack(stream=stream, report=durable.get("report", 0), telemetry=durable.get("telemetry", 0)))
            for (device_id, stream), durable in sorted(owed.durable.items())
        )
        await asyncio.gather(*(self._announcer.acknowledge(*entry) for entry in acks))
        for device_id in sorted(owed.announce):
            try:
                await self._announcer.announce(device_id)
            except FlotillaError as error:  # one device must not stop the others; it asks again at its next beat
                logger.warning("not announced device=%s error=%s %s", device_id, error.code, error.detail)


async def _remember(tx: AsyncSession, owed: Owed, now: datetime) -> None:
    """How far each stream has come, once for the whole batch and in its transaction."""
    for device_id, stream, kind in sorted(owed.moved):
        await devices.set_durable(tx, device_id, stream, kind, owed.durable[device_id, stream][kind])
    await tx.flush()
    for window in owed.newest.values():
        if window.shed:
            await heard.shed(tx, window, now=now)


def _same_device(named: str, device: Device) -> None:
    if named != device.id:
        raise BadInputError(f"{device.id} speaks in the name of {named[:64]!r}")


MAX_NUMBER: Final = 2**53
MAX_STREAM: Final = 64
MAX_FEATURES: Final = 256
MAX_ERROR_KINDS: Final = 32
MAX_NAME: Final = 64


def _bounded(message: Queued) -> None:
    """Refuse what would not fit our tables or pages."""
    if not 0 < len(message.stream) <= MAX_STREAM:
        raise BadInputError("the name of the stream is too long")
    numbers = [message.sequence, message.after]
    names: list[str] = []
    if isinstance(message, UpdateReport):
        numbers += [message.assignment, message.fetched_bytes or 0, message.total_bytes or 0]
        names += [message.rollout or ""]
    if isinstance(message, TelemetryWindow):
        numbers += [message.requests, message.labelled, message.correct, message.restarts, message.shed]
        numbers += [*message.errors.values(), *message.latency.values(), *message.batches.values()]
        numbers += [value for triple in message.confusion for value in triple]
        names += [message.boot, *message.features, *message.errors]
        if len(message.features) > MAX_FEATURES or len(message.errors) > MAX_ERROR_KINDS:
            raise BadInputError("too many features or kinds of errors in one window")
    if max(numbers) > MAX_NUMBER or any(len(name) > MAX_NAME for name in names):
        raise BadInputError("a number or a name is too long")
