"""Tell of devices that let several of their windows pass: they are there, but something keeps them from swapping.

I/O: none.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from fleet.alerts import desk
from fleet.driver_parts import DriverParts
from fleet.rollouts import saved
from fleet.rollouts.states import ENDED
from fleet.schedules import timing
from fleet.store import alerts, rollouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.store.tables import Rollout

#: Windows are hours apart.
EVERY: Final = timedelta(minutes=1)
#: The end of the alert's subject; other alerts on rollouts end with a release.
SUBJECT: Final = " windows"


class WaitWatch:
    """Opens one alert for each rollout whose devices let windows pass, and resolves it when they came through."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        self._looked: datetime | None = None

    async def look(self, now: datetime) -> None:
        """Once a minute; other calls do nothing."""
        if self._looked is not None and timedelta(0) <= now - self._looked < EVERY:
            return
        self._looked = now
        async with self._parts.database.read() as tx:
            found = {row.id: late for row in await rollouts.active(tx) if (late := await self._late(tx, row, now))}
            known = {
                alert.subject for alert in await alerts.live(tx, kind="rollout") if alert.subject.endswith(SUBJECT)
            }
        if not found and not known:
            return
        async with self._parts.database.write() as tx:
            for rollout, late in found.items():
                await self._open(tx, rollout, late, now)
            for alert in await alerts.live(tx, kind="rollout"):
                if alert.subject.endswith(SUBJECT) and alert.subject.removesuffix(SUBJECT) not in found:
                    await desk.clear(tx, alert, because="its devices came through, or the rollout is over", now=now)

    async def _late(self, tx: AsyncSession, row: Rollout, now: datetime) -> Sequence[str]:
        table = saved.from_json(row.body).window
        if table is None or row.state != "running":
            return []
        late = []
        for deployment, device in await rollouts.pairs(tx, row.id):
            if deployment.told_at is None or deployment.state in ENDED or timing.FEATURE not in device.features:
                continue
            window = timing.window_of(table, row.id, device.id, device.labels)
            if timing.passed(window, deployment.told_at, now) >= self._parts.settings.scheduling.missed_windows:
                late.append(f"{device.id} ({deployment.reason or deployment.state})")
        return late

    async def _open(self, tx: AsyncSession, rollout: str, late: Sequence[str], now: datetime) -> None:
        limit = self._parts.settings.scheduling.missed_windows
        names = ", ".join(late[:3]) + (f" and {len(late) - 3} more" if len(late) > 3 else "")
        await desk.open_alert(
            tx,
            kind="rollout",
            scope="fleet",
            subject=f"{rollout}{SUBJECT}",
            severity="medium",
            text=f"{rollout}: {len(late)} devices let {limit} or more of their windows pass: {names}",
            body={"rollout": rollout, "devices": list(late)[:100]},
            now=now,
        )
