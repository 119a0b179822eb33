"""What devices say, stored before it is acknowledged.

    link.messages -> signature -> parse -> one transaction for all that wait -> MQTT ack -> down/ack -> hub

A device sends everything again that no `down/ack` covers, in order: what was stored before is dropped, and what comes
after a gap is left for the next round (go-back-N), unless the manager was restored from a backup (`gaps`). Windows of
one transaction are stored by one statement, reports by few; only when that fails, one by one, so that a bad one harms
no other.

I/O: tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError, OperationalError

from fleet.store import devices, releases, windows
from fleet.telemetry import bounds, heard
from fleet.telemetry.gaps import Gaps
from fleet.telemetry.rate import Buckets
from shared import seal
from shared.errors import BadInputError, FlotillaError
from shared.messages import Ack, DeviceState, TelemetryWindow, UpdateReport
from shared.seal import SealError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.devices.announcer import Announcer
    from fleet.hub import Hub
    from fleet.settings import MqttSettings
    from fleet.store.database import Database
    from fleet.store.devices import Speakers
    from fleet.store.tables import Device
    from shared.clock import Clock
    from shared.messages import Queued
    from shared.mqtt_link import Incoming, MqttLink

logger = logging.getLogger(__name__)

#: Messages that share one commit.
BATCH: Final = 256
#: Assignments are never numbered so high; a device that claims it is wrong.
MOST_ASSIGNMENTS: Final = 2**31 - 2**24
_WANTS: Final = f"/up/{Channel.WANT}"


Line = tuple[str, str]  # device, stream


@dataclass(slots=True)
class Owed:
    """What one transaction holds, and what is to be said once it is durable."""

    speakers: Speakers
    gaps: Gaps | None = None  # of a restored manager
    durable: dict[Line, dict[str, int]] = field(default_factory=dict)  # of those who spoke: kind -> sequence
    moved: set[tuple[str, str, str]] = field(default_factory=set)  # device, stream, kind: not yet written
    windows: list[TelemetryWindow] = field(default_factory=list)  # not yet written
    announce: set[str] = field(default_factory=set)
    changed: bool = False

    def follows(self, message: Queued, kind: str) -> bool:
        """Whether it is the next of its line: neither one that is here, nor one after a gap."""
        line = (message.device, message.stream)
        if line not in self.durable:
            self.durable[line] = self.speakers.durable(*line)
        known = self.durable[line].get(kind, 0)
        if message.after > known and self.gaps is not None and self.gaps.over((*line, kind), message.sequence):
            logger.warning("a line goes on after a restore device=%s kind=%s had=%d lost=%d",
                           message.device, kind, known, message.after - known)  # fmt: skip
            return True
        return message.after <= known < message.sequence

    def take(self, message: Queued, kind: str) -> None:
        """It will be durable with this transaction."""
        self.durable[message.device, message.stream][kind] = message.sequence
        self.moved.add((message.device, message.stream, kind))
        self.changed = True


class Ingest:
    """The only consumer of the manager's link."""

    def __init__(
        self,
        *,
        database: Database,
        link: MqttLink,
        announcer: Announcer,
        hub: Hub,
        clock: Clock,
        limits: MqttSettings,
        wants: Callable[[Incoming], None] = lambda _: None,
    ) -> None:
        self._database, self._link, self._announcer, self._hub, self._clock = database, link, announcer, hub, clock
        self._signed = limits.require_signatures
        self._buckets = Buckets(rate=limits.messages_per_second, burst=limits.burst_messages)
        self._wants = wants  # who serves what devices want to have sent
        self.stored = 0  # messages, for /metrics
        self.dropped = 0
        self.forged = 0  # of these: signed by another key, or not at all
        self._gaps: Gaps | None = None
        self._begun = False
        self._acks: dict[Line, dict[str, int]] = {}  # durable, and not yet told
        self._announce = set[str]()
        self._promised = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. A database that fails ends it, and nothing of that round was acknowledged."""
        messages = self._link.messages()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_all(), name="ingest-acknowledge")
            while True:
                batch = await self._take(messages)
                owed = await self.store(batch)
                for incoming in batch:
                    incoming.ack()
                self._promise(owed)

    async def _take(self, messages: AsyncIterator[Incoming]) -> list[Incoming]:
        batch: list[Incoming] = []
        while not batch or (self._link.backlog and len(batch) < BATCH):
            incoming = await anext(messages)
            if incoming.topic.endswith(_WANTS):
                self._wants(incoming)
                incoming.ack()  # a device that waits in vain asks again
            else:
                batch.append(incoming)
        return batch

    async def store(self, batch: list[Incoming]) -> Owed:
        """Make `batch` durable; what is to be said afterwards."""
        now = self._clock.now()
        async with self._database.write() as tx:
            if not self._begun:
                self._gaps, self._begun = Gaps() if await releases.floor(tx) else None, True
            owed = await self._together(tx, batch, now) if len(batch) > 1 else None
            if owed is None:
                owed = Owed(await devices.speakers(tx, _named(batch)), self._gaps)
                for incoming in batch:
                    await self._one(tx, incoming, owed, now)
            await self._windows(tx, owed, now)
            await _remember(tx, owed, now)
        return owed

    async def _together(self, tx: AsyncSession, batch: list[Incoming], now: datetime) -> Owed | None:
        """All of `batch` in as few statements as it takes; None, and nothing done, when the database refuses one."""
        owed = Owed(await devices.speakers(tx, _named(batch)), self._gaps)
        counted = self.stored, self.dropped, self.forged
        said = [(incoming, found) for incoming in batch if (found := self._heard(incoming, owed)) is not None]
        held = await windows.deployments(tx, [one for _, (_, one) in said if isinstance(one, UpdateReport)])
        try:
            async with tx.begin_nested():
                for incoming, (device, one) in said:
                    if isinstance(one, TelemetryWindow):
                        await _window(tx, device, one, owed, now)
                    elif isinstance(one, UpdateReport):
                        await _report(tx, device, one, owed, now, at_once=False)
                    else:
                        await _state(tx, device, one, owed, retained=incoming.retained, now=now)
                    self.stored += 1
        except (DBAPIError, OverflowError) as error:
            if isinstance(error, OperationalError):
                raise  # the disk, not a message
            logger.info("a batch is stored one by one reason=%s", type(error).__name__)
            self.stored, self.dropped, self.forged = counted
            return None
        logger.debug("stored messages=%d deployments=%d", len(said), len(held))
        return owed

    def _heard(
        self, incoming: Incoming, owed: Owed
    ) -> tuple[Device, DeviceState | UpdateReport | TelemetryWindow] | None:
        """As `_understood`; None for what is dropped, and for a retained message that was removed."""
        try:
            return self._understood(incoming, owed) if incoming.payload else None
        except BadInputError as error:
            self.dropped += 1
            self.forged += isinstance(error, SealError)
            logger.warning("message dropped topic=%s reason=%s", incoming.topic[:120], error)
            return None

    async def _one(self, tx: AsyncSession, incoming: Incoming, owed: Owed, now: datetime) -> None:
        if (found := self._heard(incoming, owed)) is None:
            return
        device, said = found
        try:
            if isinstance(said, TelemetryWindow):
                await _window(tx, device, said, owed, now)
            else:
                async with tx.begin_nested():
                    if isinstance(said, UpdateReport):
                        await _report(tx, device, said, owed, now, at_once=True)
                    else:
                        await _state(tx, device, said, owed, retained=incoming.retained, now=now)
            self.stored += 1
        except (DBAPIError, OverflowError) as error:
            self._unstorable(error, incoming.topic)
            owed.speakers = await devices.speakers(tx, owed.speakers.devices)  # what was undone is read again

    def _understood(
        self, incoming: Incoming, owed: Owed
    ) -> tuple[Device, DeviceState | UpdateReport | TelemetryWindow]:
        """Who speaks, and what it says; checked once, and for good. Changes nothing."""
        address = Address.parse(incoming.topic)
        device = owed.speakers.devices.get(address.device)
        if device is None or device.lifecycle == "revoked":
            raise BadInputError(f"{address.device} is not a device that may speak")
        if not self._buckets.take(device.id, self._clock.monotonic()):
            raise BadInputError(f"{device.id} speaks too fast")
        said: DeviceState | UpdateReport | TelemetryWindow
        match address.channel:
            case Channel.STATE:
                said = DeviceState.parse(incoming.payload)
            case Channel.REPORT:
                said = UpdateReport.parse(self._opened(device, incoming))
            case Channel.TELEMETRY:
                said = TelemetryWindow.parse(self._opened(device, incoming))
            case _:
                raise BadInputError("devices do not speak on this channel")
        if said.device != device.id:
            raise BadInputError(f"{device.id} speaks in the name of {said.device[:64]!r}")
        if not isinstance(said, DeviceState):
            bounds.check(said)
        return device, said

    def _opened(self, device: Device, incoming: Incoming) -> bytes:
        """The payload, if it is signed by the key that this device enrolled with."""
        return seal.opened(incoming.payload, topic=incoming.topic, key=device.sign_key, required=self._signed)

    async def _windows(self, tx: AsyncSession, owed: Owed, now: datetime) -> None:
        """Store them by one statement. One that the database refuses is dropped, the others are stored."""
        try:
            async with tx.begin_nested():
                await windows.insert_windows(tx, owed.windows, now=now)
        except (DBAPIError, OverflowError) as error:
            if isinstance(error, OperationalError):
                raise
            for window in owed.windows:
                try:
                    async with tx.begin_nested():
                        await windows.insert_windows(tx, [window], now=now)
                except (DBAPIError, OverflowError) as its_own:
                    self._unstorable(its_own, f"{window.device} telemetry {window.sequence}")

    def _unstorable(self, error: Exception, what: str) -> None:
        if isinstance(error, OperationalError):
            raise error  # the disk, not the message
        self.dropped += 1
        logger.error("message cannot be stored from=%s", what[:120], exc_info=error)

    def _promise(self, owed: Owed) -> None:
        """It is durable: wake who waits for news, and have the devices told meanwhile."""
        if owed.changed:
            self._hub.wake()
        self._acks |= owed.durable
        self._announce |= owed.announce
        self._promised.set()

    async def _tell_all(self) -> None:
        """Tell what is owed, of each line the newest, while the next transaction runs."""
        while True:
            await self._promised.wait()
            self._promised.clear()
            acks, self._acks = self._acks, {}
            announce, self._announce = self._announce, set()
            await asyncio.gather(
                *(
                    self._announcer.acknowledge(device_id, Ack(stream=stream, **durable))
                    for (device_id, stream), durable in sorted(acks.items())
                )
            )
            for device_id in sorted(announce):
                try:
                    await self._announcer.announce(device_id)
                except FlotillaError as error:  # one device must not stop the others; it asks again at its next beat
                    logger.warning("not announced device=%s error=%s %s", device_id, error.code, error.detail)


def _named(batch: list[Incoming]) -> set[str]:
    """The devices that these topics name, as far as they name one."""
    found = set[str]()
    for incoming in batch:
        with contextlib.suppress(BadInputError):
            found.add(Address.parse(incoming.topic).device)
    return found


async def _state(
    tx: AsyncSession, device: Device, state: DeviceState, owed: Owed, *, retained: bool, now: datetime
) -> None:
    owed.changed |= await heard.state(tx, device, state, retained=retained, now=now)
    if state.online and device.assignment < state.assignment < MOST_ASSIGNMENTS:
        logger.warning("a device knows newer assignments than this manager device=%s here=%d there=%d",
                       device.id, device.assignment, state.assignment)  # fmt: skip
        device.assignment, device.assigned = state.assignment, None  # it would refuse what we have for it (ADR 35)
    if state.online and device.lifecycle == "active" and device.assigned and state.assignment < device.assignment:
        owed.announce.add(device.id)


async def _report(
    tx: AsyncSession, device: Device, report: UpdateReport, owed: Owed, now: datetime, *, at_once: bool
) -> None:
    if device.lifecycle != "active":
        return  # it stays in the device's outbox until somebody accepts the device
    owed.changed |= await heard.sign_of_life(tx, device, now=now)
    if owed.follows(report, "report"):
        windows.insert_report(tx, report, now=now)
        await heard.report(tx, report, now=now)
        if at_once:
            await tx.flush()
        owed.take(report, "report")


async def _window(tx: AsyncSession, device: Device, window: TelemetryWindow, owed: Owed, now: datetime) -> None:
    if device.lifecycle != "active":
        return
    owed.changed |= await heard.sign_of_life(tx, device, now=now)
    if owed.follows(window, "telemetry"):
        owed.windows.append(window)
        owed.take(window, "telemetry")


async def _remember(tx: AsyncSession, owed: Owed, now: datetime) -> None:
    """How far each line has come, once for the whole batch and in its transaction."""
    for key in sorted(owed.moved):
        owed.speakers.set_durable(tx, key, owed.durable[key[:2]][key[2]])
    await tx.flush()
    for window in {(window.device, window.stream): window for window in owed.windows}.values():
        if window.shed:
            await heard.shed(tx, window, now=now)
