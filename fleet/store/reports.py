"""Queries for reports: sums of some devices in some time, alerts of that time, what windows say of performance.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.sketches import Place
from fleet.store.tables import Alert, Device, Sketch, Stream, Window


class Known(NamedTuple):
    """A device, as far as a report tells of it."""

    id: str
    site: str
    active: bool
    seen_at: datetime | None
    serving: Mapping[str, str]


async def devices(tx: AsyncSession) -> Mapping[str, Known]:
    """Every device that is not revoked."""
    query = select(Device.id, Device.site, Device.lifecycle, Device.seen_at, Device.serving)
    rows = await tx.execute(query.where(Device.lifecycle != "revoked"))
    return {row[0]: Known(row[0], row[1], row[2] == "active", row[3], row[4] or {}) for row in rows}


async def versions(tx: AsyncSession, model: str, span: str, since: datetime, until: datetime) -> Mapping[str, int]:
    """Version -> on how many devices anything was counted in this time."""
    query = select(Sketch.version, func.count(Sketch.device_id.distinct())).where(
        Sketch.model == model, Sketch.span == span, Sketch.start >= since, Sketch.start < until
    )
    return {row[0]: row[1] for row in await tx.execute(query.group_by(Sketch.version))}


async def reporters(
    tx: AsyncSession, model: str, version: str, span: str, since: datetime, until: datetime
) -> Sequence[str]:
    """Devices of which anything was counted, by id."""
    query = select(Sketch.device_id).where(
        Sketch.model == model,
        Sketch.version == version,
        Sketch.span == span,
        Sketch.start >= since,
        Sketch.start < until,
    )
    return sorted(await tx.scalars(query.distinct()))


async def sums(
    tx: AsyncSession, place: Place, until: datetime, devices: Collection[str]
) -> Sequence[tuple[str, datetime, bytes]]:
    """(device, start, vector) of these devices, from `place.start` on; `place.device` is not looked at."""
    query = select(Sketch.device_id, Sketch.start, Sketch.vector).where(
        Sketch.device_id.in_(list(devices)),
        Sketch.model == place.model,
        Sketch.version == place.version,
        Sketch.span == place.span,
        Sketch.start >= place.start,
        Sketch.start < until,
    )
    return [(row[0], row[1], row[2]) for row in await tx.execute(query)]


async def alerts(tx: AsyncSession, since: datetime, until: datetime) -> Sequence[Alert]:
    """Alerts that were live at any time in between, newest first."""
    query = select(Alert).where(Alert.opened_at < until, or_(Alert.resolved_at.is_(None), Alert.resolved_at >= since))
    return (await tx.scalars(query.order_by(Alert.opened_at.desc(), Alert.id))).all()


async def requests(
    tx: AsyncSession, model: str, version: str, since: datetime, until: datetime, devices: Collection[str] | None
) -> tuple[int, int]:
    """Requests and failures that windows of this time tell of; of some devices, or of all."""
    query = select(Window.device_id, func.sum(Window.requests), func.sum(Window.failed)).where(
        Window.model == model, Window.version == version, Window.received_at >= since, Window.received_at < until
    )
    rows = await tx.execute(query.group_by(Window.device_id))
    found = [(int(row[1] or 0), int(row[2] or 0)) for row in rows if devices is None or row[0] in devices]
    return sum(row[0] for row in found), sum(row[1] for row in found)


async def earliest_of(tx: AsyncSession, model: str, since: datetime, newest: int) -> datetime | None:
    """When the `newest`-th newest window of a model since then came; None when there are fewer."""
    query = select(Window.received_at).where(Window.model == model, Window.received_at >= since)
    return await tx.scalar(query.order_by(Window.received_at.desc()).offset(newest).limit(1))


async def shed(tx: AsyncSession) -> Mapping[str, int]:
    """Device -> telemetry windows that it threw away; none of those without any."""
    query = select(Stream.device_id, func.sum(Stream.shed)).where(Stream.kind == "telemetry", Stream.shed > 0)
    return {row[0]: int(row[1]) for row in await tx.execute(query.group_by(Stream.device_id))}
