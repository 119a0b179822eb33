"""Notice devices that fell silent without a last will, say so once, and raise an alert for who stays away.

I/O: tasks, chance.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.alerts import desk
from fleet.devices.liveness import GONE_BEATS, Patience, Presence
from fleet.store import alerts, events
from fleet.store.tables import Device
from shared.clock import rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.hub import Hub
    from fleet.store.database import Database
    from shared.clock import Clock

logger = logging.getLogger(__name__)


class LivenessWatch:
    """Looks several times per heartbeat."""

    def __init__(self, database: Database, hub: Hub, clock: Clock, patience: Patience) -> None:
        self._database, self._hub, self._clock, self._patience = database, hub, clock, patience

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(max(0.05, min(15.0, self._patience.heartbeat.total_seconds() / 4)))

    async def look(self) -> list[str]:
        """Mark who has been silent for too long as offline; their ids. Open and clear connectivity alerts."""
        await self._alerts()
        now = self._clock.now()
        async with self._database.read() as tx:
            silent = [
                device.id for device in await tx.scalars(select(Device).where(Device.online)) if self._gone(device)
            ]
        if not silent:
            return []
        async with self._database.write() as tx:
            gone = [device for name in silent if (device := await tx.get(Device, name)) and self._gone(device)]
            seconds = GONE_BEATS * self._patience.heartbeat.total_seconds()
            for device in gone:
                device.online = False
                text = f"{device.id} is offline: silent for more than {seconds:.0f} s"
                await events.add(tx, kind="device", level="warn", subject=device.id, text=text, now=now)
        self._hub.wake()
        logger.warning("devices offline ids=%s", ",".join(device.id for device in gone))
        return [device.id for device in gone]

    async def _alerts(self) -> None:
        """One alert for each active device that has been away for three heartbeats, whether it said good-bye or not."""
        now = self._clock.now()
        async with self._database.read() as tx:
            live = {alert.scope for alert in await alerts.live(tx, kind="connectivity")}
            rows = (await tx.scalars(select(Device).where(Device.seen_at.is_not(None)))).all()
        away = {
            f"device:{row.id}" for row in rows if row.lifecycle == "active" and self._patience.away(row.seen_at, now)
        }
        if live == away:
            return
        async with self._database.write() as tx:
            for scope in sorted(away - live):
                await self._open(tx, scope, now)
            for alert in await alerts.live(tx, kind="connectivity"):
                if alert.scope not in away:
                    await desk.clear(tx, alert, because="it is back, or was revoked", now=now)
        self._hub.wake()

    async def _open(self, tx: AsyncSession, scope: str, now: datetime) -> None:
        device = await tx.get(Device, scope.removeprefix("device:"))
        if device is None or device.seen_at is None:
            return
        await desk.open_alert(
            tx,
            kind="connectivity",
            scope=scope,
            subject=device.id,
            severity="medium",
            text=f"{device.id} is away: last heard {device.seen_at:%Y-%m-%d %H:%M:%S} UTC",
            body={"device": device.id, "seen_at": rfc3339(device.seen_at)},
            now=now,
        )

    def _gone(self, device: Device) -> bool:
        presence = self._patience.presence(online=device.online, seen_at=device.seen_at, now=self._clock.now())
        return device.online and presence is Presence.OFFLINE
