"""Look once a minute at what runs out and what fails; open alerts for it, resolve those whose cause is gone.

I/O: tasks.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk, expected
from fleet.alerts.driver import Parts
from fleet.alerts.expected import Ending, Memory, Progress, Served, Wanted
from fleet.rollouts.states import STAYED, TIMED_OUT
from fleet.store import alerts, releases, rollouts, tables, tokens

EVERY_SECONDS: Final = 60.0
LOOK_BACK: Final = timedelta(hours=1)
KINDS: Final = ("expiry", "performance", "deployment")
_FAILED: Final = (*STAYED, TIMED_OUT)
_REMEDIES: Final = {
    "snapshot": "the manager signs it by itself; its log says why it does not",
    "timestamp": "the manager signs it by itself; its log says why it does not",
}


class AlertWatch:
    """Opens and resolves the alerts of three kinds. One per manager."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Once. Without anything to say nothing is written."""
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            wanted = await self._wanted(tx, now)
            live = [alert for kind in KINDS for alert in await alerts.live(tx, kind=kind) if _ours(alert)]
        if not wanted and not live:
            return
        async with self._parts.database.write() as tx:
            for one in wanted:
                await _open(tx, one, now)
            still = {(one.kind, one.scope, one.subject) for one in wanted}
            for kind in KINDS:
                for alert in await alerts.live(tx, kind=kind):
                    if _ours(alert) and (alert.kind, alert.scope, alert.subject) not in still:
                        await self._quiet(tx, alert, now)
        self._parts.hub.wake()

    async def _wanted(self, tx: AsyncSession, now: datetime) -> list[Wanted]:
        settings = self._parts.settings
        notice = timedelta(days=settings.alerts.expiry_days)
        return [
            *expected.expiring(await _endings(tx, now, notice), now, notice),
            *expected.failing(await _served(tx, now - LOOK_BACK), settings.monitoring.error_rate_threshold),
            *expected.crowded(await _memories(tx, now - LOOK_BACK), settings.monitoring.memory_usage_threshold),
            *expected.stumbling(await _progress(tx)),
        ]

    async def _quiet(self, tx: AsyncSession, alert: tables.Alert, now: datetime) -> None:
        """One look without the cause; after a few in a row it is over. A finished rollout keeps its alert."""
        if alert.kind == "deployment":
            row = await rollouts.get(tx, str(alert.body.get("rollout")))
            if row is not None and row.state == "completed":
                return  # its devices still failed: a person resolves it
        quiet = int(alert.body.get("quiet", 0)) + 1
        if quiet >= self._parts.settings.alerts.clear_evaluations:
            await desk.clear(tx, alert, because="its cause is gone", now=now)
        else:
            alert.body = {**alert.body, "quiet": quiet}


def _ours(alert: tables.Alert) -> bool:
    """Other parts open alerts on performance, too, and look after them."""
    watched = alert.subject.endswith(expected.ERRORS) or alert.subject == expected.MEMORY
    return alert.kind != "performance" or watched


async def _open(tx: AsyncSession, one: Wanted, now: datetime) -> None:
    await desk.open_alert(
        tx,
        kind=one.kind,
        scope=one.scope,
        subject=one.subject,
        severity=one.severity,
        text=one.text,
        body=one.body,
        now=now,
    )


async def _endings(tx: AsyncSession, now: datetime, notice: timedelta) -> list[Ending]:
    found = [
        Ending(f"token {row.name} ({row.id})", row.created_at, row.expires_at, "flotilla token create")
        for row in await tokens.expiring(tx, now, now + notice)
        if row.expires_at is not None
    ]
    for role, row in (await releases.newest_documents(tx)).items():
        ends = _expires(row.data)
        if ends is not None:
            remedy = _REMEDIES.get(role, "flotilla init signs it anew")
            found.append(Ending(role, None, ends, remedy))
    return found


def _expires(document: bytes) -> datetime | None:
    """When a signed document ends; None for one that does not say so. It was verified when it was stored."""
    try:
        return datetime.fromisoformat(json.loads(document)["signed"]["expires"])
    except (ValueError, KeyError, TypeError):
        return None


async def _served(tx: AsyncSession, since: datetime) -> Sequence[Served]:
    table = tables.Window
    failing = select(table.device_id).where(text("failed > 0"), table.received_at >= since)  # has an index of its own
    query = (
        select(table.device_id, table.model, table.version, func.sum(table.requests), func.sum(table.failed))
        .where(table.received_at >= since, table.device_id.in_(failing))
        .group_by(table.device_id, table.model, table.version)
        .having(func.sum(table.failed) > 0)
    )
    rows = (await tx.execute(query)).all()
    return [Served(device, model, version, int(asked), int(failed)) for device, model, version, asked, failed in rows]


async def _memories(tx: AsyncSession, since: datetime) -> Sequence[Memory]:
    """Of each device the last window that came and says anything of memory; one row of each is read."""
    table, device = tables.Window, tables.Device
    host = (
        select(table.body["host"])
        .where(table.device_id == device.id, table.received_at >= since)
        .where(table.body["host", "memory_total_bytes"].as_string().is_not(None))
        .order_by(table.received_at.desc(), table.sequence.desc())
        .limit(1)
        .correlate(device)
        .scalar_subquery()
    )
    found = (await tx.execute(select(device.id, host))).all()
    told = [(name, said["memory_total_bytes"], said.get("memory_used_bytes")) for name, said in found if said]
    return [Memory(name, int(used), int(total)) for name, total, used in told if used is not None and total]


async def _progress(tx: AsyncSession) -> list[Progress]:
    found = []
    for row in await rollouts.active(tx):
        if row.state not in ("running", "paused"):
            continue  # it is taken back: the alert of the rollout says so
        table = tables.Deployment
        query = select(table.state, func.count()).where(table.rollout_id == row.id).group_by(table.state)
        counts = {str(state): int(count) for state, count in (await tx.execute(query)).all()}
        failed = sum(counts.get(state, 0) for state in _FAILED if state != "cancelled")
        found.append(Progress(row.id, row.model, row.version, failed, sum(counts.values())))
    return found
