"""The shell of the life of alerts: silence, escalate, decide who is told, tell them.

    look:  rows -> course -> alerts moved      \\ one transaction
           notices -> settle -> messages owed  /
    send:  for each channel: attempt saved -> message sent -> outcome saved

A kill between any two lines is harmless: a message is owed before it is sent and pending until its outcome is saved,
so that it is sent at least once, each time with the same id.

I/O: tasks, chance.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import course, desk, gathering, notices, retrying, sender, wording
from fleet.alerts.channels import Channel
from fleet.alerts.notices import Owed, Settled
from fleet.alerts.wording import Message
from fleet.driver_parts import DriverParts
from fleet.store import deliveries, events, tables
from shared.errors import FlotillaError, RefusedError

logger = logging.getLogger(__name__)

#: Without news, silences that end, escalations and retries are looked at this often.
IDLE_SECONDS: Final = 5.0
#: With news, never more often than this.
REST_SECONDS: Final = 0.25  # of one channel
LOOK_SECONDS: Final = 1.0
KEPT: Final = timedelta(days=30)  # of the delivery log


class Parts(DriverParts, Protocol):
    """What the driver needs of `fleet.daemon.Manager`."""

    @property
    def manager_url(self) -> str: ...


class AlertDriver:
    """Moves every alert on and tells of it. One per manager; `chance` gives numbers between 0 and 1."""

    def __init__(self, parts: Parts, *, chance: Callable[[], float] = random.random) -> None:
        self._parts, self._chance = parts, chance
        found = parts.settings.alerts
        self._channels = parts.settings.channels
        self._notified = found.notification_channels if found.enable_notifications else ()
        self._patience = timedelta(hours=found.escalation_hours)
        self._wait = timedelta(seconds=found.group_wait_seconds)
        self._window = timedelta(days=parts.settings.drift_detection.detection_window_days)

    async def run(self) -> None:
        """Until cancelled: one task decides, one for each channel sends, so that none waits for another."""
        async with self._parts.database.write() as tx:
            await deliveries.without(tx, list(self._channels), self._parts.clock.now())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again("look", self.look, LOOK_SECONDS), name="alerts")
            for name in self._channels:
                group.create_task(self._again(name, partial(self.deliver, name), REST_SECONDS), name=f"channel-{name}")

    async def _again(self, what: str, work: Callable[[], Awaitable[None]], rest: float) -> None:
        seen = -1
        while True:
            try:
                await work()
            except FlotillaError as error:
                logger.warning("alerts stand still what=%s error=%s detail=%s", what, error.code, error.detail)
            await asyncio.sleep(rest)
            seen = await self._parts.hub.wait(seen, IDLE_SECONDS)

    async def look(self) -> None:
        """Move alerts on and decide what is owed to whom; nothing is written when nothing is due."""
        async with self._parts.database.read() as tx:
            idle = not await self._moves(tx) and not (await self._settled(tx)).notices
        if idle:
            return
        async with self._parts.database.write() as tx:  # again, on what is true while we hold the pen
            now = self._parts.clock.now()
            for move in await self._moves(tx):
                alert = await tx.get_one(tables.Alert, move.alert)
                await desk.take_course(tx, alert, move.event, because=move.because, now=now)
            await tx.flush()
            await self._owe(tx, await self._settled(tx))
            await deliveries.forget(tx, now - KEPT)
        self._parts.hub.wake()

    async def _moves(self, tx: AsyncSession) -> list[course.Move]:
        now = self._parts.clock.now()
        silences = await gathering.valid_silences(tx, now)
        found = await gathering.live(tx, open_before=now - self._patience, silences=bool(silences))
        return list(course.moves(found, silences, now, self._patience))

    async def _settled(self, tx: AsyncSession) -> Settled:
        waiting, failing = await deliveries.pending(tx), await deliveries.channels(tx)
        automatic = self._parts.settings.alerts.auto_trigger_retraining
        routes = gathering.routes(
            self._channels, self._notified, retraining=automatic, failing=failing, waiting=waiting
        )
        found = await gathering.notices(tx)
        return notices.settle(found, routes, self._parts.clock.now(), wait=self._wait, window=self._window)

    async def _owe(self, tx: AsyncSession, settled: Settled) -> None:
        now = self._parts.clock.now()
        for number in settled.notices:
            (await tx.get_one(tables.AlertNotice, number)).settled_at = now
        for name in settled.told:
            alert = await tx.get_one(tables.Alert, name)
            alert.told_at = alert.told_at or now
        for owed in settled.owed:
            await self._owe_one(tx, owed)

    async def _owe_one(self, tx: AsyncSession, owed: Owed) -> None:
        if await tx.get(tables.Delivery, owed.id) is not None:
            return  # owed before, such as a second opening of an alert that asked for retraining
        if owed.joins is not None and await _joined(tx, owed):
            return
        tx.add(
            tables.Delivery(
                id=owed.id,
                channel=owed.channel,
                purpose=owed.purpose,
                group_key=owed.group,
                body=owed.body,
                state="pending",
                attempts=0,
                owed_at=self._parts.clock.now(),
            )
        )
        await tx.flush()

    async def deliver(self, name: str) -> None:
        """Send what a channel is due until it has everything, or fails."""
        while await self._deliver_one(name, self._channels[name]):
            continue

    async def _deliver_one(self, name: str, settings: Channel) -> bool:
        said = await self._claimed(name)
        if said is None:
            return False
        try:
            answer = await sender.send(settings, said, self._parts.clock.now())
        except RefusedError as error:
            await self._settle(name, said.id, "refused", error.detail)
        except FlotillaError as error:
            await self._failed(name, said.id, f"{error.detail} ({error.code})")
            return False
        else:
            await self._settle(name, said.id, "delivered", answer)
        return True

    async def _claimed(self, name: str) -> Message | None:
        """The next message, its attempt saved; None while nothing is due."""
        async with self._parts.database.read() as tx:
            if await self._next(tx, name) is None:
                return None
        async with self._parts.database.write() as tx:
            found = await self._next(tx, name)
            if found is None:
                return None
            row = await _held(tx, found.id)
            row.attempts, row.tried_at = row.attempts + 1, self._parts.clock.now()
        manager = self._parts.manager_url
        return wording.message(row.id, row.purpose, row.body, group=row.group_key, at=row.owed_at, manager=manager)

    async def _next(self, tx: AsyncSession, name: str) -> tables.Delivery | None:
        rows = {row.id: row for row in await deliveries.pending(tx, name)}
        if not rows:
            return None
        known = (await deliveries.channels(tx)).get(name)
        waiting = [retrying.Waiting(row.id, row.attempts, row.owed_at) for row in rows.values()]
        found = retrying.next_of(waiting, known.next_at if known else None, self._parts.clock.now())
        return rows[found.id] if found else None

    async def _settle(self, name: str, delivery: str, state: str, said: str) -> None:
        """The channel answered, so it works, whatever it said to this message."""
        now = self._parts.clock.now()
        async with self._parts.database.write() as tx:
            row = await tx.get_one(tables.Delivery, delivery)
            row.state, row.outcome, row.settled_at = state, said[:500], now
            channel = await deliveries.channel(tx, name)
            if channel.failures:
                await _tell(tx, name, "ok", f"channel {name} works again", now)
            channel.failures, channel.error, channel.next_at = 0, None, None
            if state == "delivered":
                channel.delivered_at = now
            else:
                await _tell(tx, name, "crit", f"channel {name} refuses {delivery}: {said}", now)
        self._parts.hub.wake()
        logger.info("alert message %s channel=%s delivery=%s", state, name, delivery)

    async def _failed(self, name: str, delivery: str, why: str) -> None:
        now = self._parts.clock.now()
        async with self._parts.database.write() as tx:
            row = await tx.get_one(tables.Delivery, delivery)
            row.outcome = why[:500]
            if retrying.hopeless(retrying.Waiting(row.id, row.attempts, row.owed_at), now):
                row.state, row.settled_at = "given-up", now
            channel = await deliveries.channel(tx, name)
            if not channel.failures:
                await _tell(tx, name, "crit", f"channel {name} fails: {why}", now)
                logger.warning("channel fails channel=%s why=%s", name, why)
            channel.failures, channel.error = channel.failures + 1, why[:500]
            channel.next_at = now + retrying.pause(channel.failures, self._chance())
        self._parts.hub.wake()


async def _held(tx: AsyncSession, name: str) -> tables.Delivery:
    """The row as it is now, and nobody else changes it before we commit."""
    return await tx.get_one(tables.Delivery, name, with_for_update=True, populate_existing=True)


async def _joined(tx: AsyncSession, owed: Owed) -> bool:
    """Add to a message that waits; False when it was tried meanwhile, so that its content is fixed."""
    waiting = await _held(tx, owed.joins or "")
    if waiting.attempts:
        return False
    waiting.body = notices.merged(waiting.body, owed.body["items"])
    await tx.flush()
    return True


async def _tell(tx: AsyncSession, name: str, level: events.Level, text: str, now: datetime) -> None:
    await events.add(tx, kind="alert", level=level, subject=name, text=text, now=now)
