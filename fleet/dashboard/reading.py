"""Ask the database for what a page shows. Windows are read once and kept: each tick asks only for newer ones.

I/O: disk.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.dashboard import facts
from fleet.store import tables
from shared.sketches import Latency

_LOOK_BACK: Final = timedelta(hours=2)
_FIRST_WINDOWS: Final = 20_000
_DEVICES: Final = 5_000
#: Verdicts, the gravest first.
_GRAVEST: Final = ("drifted", "warning", "ok", "collecting")


class History:
    """The newest windows of each device. One for a process; belongs to one event loop."""

    def __init__(self) -> None:
        self._windows: dict[str, deque[facts.Window]] = {}
        self._read: dict[tuple[str, str], int] = {}  # (device, stream) -> sequence
        self._since: datetime | None = None

    @property
    def windows(self) -> Mapping[str, Sequence[facts.Window]]:
        """Device -> its windows, oldest first, at most `facts.WINDOWS_SHOWN`."""
        return self._windows

    async def refresh(self, tx: AsyncSession, now: datetime) -> None:
        """Take in what was stored since the last call."""
        table = tables.Window
        columns = (
            table.device_id, table.stream, table.sequence, table.model, table.version, table.start, table.end,
            table.received_at, table.requests, table.failed,
            table.body["latency"], table.body["host"], table.body["restarts"],
        )  # fmt: skip
        newer = select(*columns).where(table.received_at >= (self._since or now - _LOOK_BACK))
        newest_first = newer.order_by(table.received_at.desc(), table.sequence.desc()).limit(_FIRST_WINDOWS)
        for row in reversed((await tx.execute(newest_first)).all()):
            key = (row[0], row[1])
            if row[2] > self._read.get(key, 0):
                self._read[key] = row[2]
                self._windows.setdefault(row[0], deque(maxlen=facts.WINDOWS_SHOWN)).append(_window(row))
            self._since = max(self._since or row[7], row[7])


def _window(row: Sequence[Any]) -> facts.Window:
    latency = Latency({int(index): int(count) for index, count in (row[10] or {}).items()})
    host = row[11] or {}
    return facts.Window(
        device=row[0],
        model=row[3],
        version=row[4],
        start=row[5],
        end=row[6],
        received_at=row[7],
        requests=row[8],
        failed=row[9],
        latency=latency,
        p95_ms=latency.quantile_ms(0.95),
        cpu_ratio=host.get("cpu_ratio"),
        gpu_ratio=host.get("gpu_ratio"),
        temperature_celsius=host.get("temperature_celsius"),
        restarts=row[12] or 0,
    )


async def fleet(
    tx: AsyncSession, windows: Mapping[str, Sequence[facts.Window]], now: datetime, limits: facts.Limits
) -> facts.Fleet:
    """Everything that the Fleet page shows."""
    found = await rollouts(tx, limit=20)
    going = [rollout.id for rollout in found if rollout.state not in facts.OVER] or [one.id for one in found[:1]]
    return facts.Fleet(
        now=now,
        devices=await devices(tx),
        windows=windows,
        drift=await _device_drift(tx),
        alerts=await _alerts(tx),
        failing=await _failing(tx),
        events=await _events(tx, limit=12),
        rollouts=found,
        deployments=await _deployments(tx, going),
        releases=await _releases(tx),
        limits=limits,
    )


async def counts(tx: AsyncSession) -> tuple[int, int]:
    """How many devices there are, and how many rollouts are under way: the numbers in the side bar."""
    known = select(func.count()).where(tables.Device.lifecycle != "revoked")
    going = select(func.count()).where(tables.Rollout.state.not_in(facts.OVER))
    return (await tx.execute(known)).scalar_one(), (await tx.execute(going)).scalar_one()


async def devices(tx: AsyncSession, limit: int = _DEVICES) -> tuple[facts.Device, ...]:
    """Devices, by id."""
    rows = await tx.scalars(select(tables.Device).order_by(tables.Device.id).limit(limit))
    return tuple(_device(row) for row in rows)


def _device(row: tables.Device) -> facts.Device:
    return facts.Device(
        id=row.id,
        name=row.name,
        site=row.site,
        hardware=row.hardware,
        lifecycle=row.lifecycle,
        online=row.online,
        seen_at=row.seen_at,
        slots=tuple(_slots(row.slots)),
        serving=dict(row.serving or {}),
        labels={str(key): str(value) for key, value in (row.labels or {}).items()},
        agent_version=row.agent_version,
    )


def _slots(slots: Iterable[Mapping[str, Any]] | None) -> Iterable[facts.Slot]:
    for slot in slots or ():
        yield facts.Slot(str(slot.get("slot")), str(slot.get("state")), slot.get("model"), slot.get("version"))


async def rollouts(tx: AsyncSession, limit: int = 100) -> tuple[facts.Rollout, ...]:
    """Rollouts, newest first."""
    table = tables.Rollout
    rows = await tx.scalars(select(table).order_by(table.created_at.desc(), table.id).limit(limit))
    return tuple(
        facts.Rollout(
            id=row.id,
            model=row.model,
            version=row.version,
            strategy=row.strategy,
            state=row.state,
            reason=row.reason,
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in rows
    )


async def _deployments(tx: AsyncSession, ids: Sequence[str]) -> tuple[facts.Deployment, ...]:
    table = tables.Deployment
    rows = await tx.scalars(select(table).where(table.rollout_id.in_(ids)).order_by(table.wave, table.device_id))
    return tuple(
        facts.Deployment(
            rollout=row.rollout_id,
            device=row.device_id,
            wave=row.wave,
            state=row.state,
            reason=row.reason,
            detail=row.detail,
            since=row.since,
            previous=row.previous,
            fetched_bytes=row.fetched_bytes,
            total_bytes=row.total_bytes,
            recalled=row.recalled_at is not None,
            outcome=row.outcome,
        )
        for row in rows
    )


async def _device_drift(tx: AsyncSession) -> tuple[facts.Drift, ...]:
    table = tables.DriftState
    columns = (
        table.scope,
        table.model,
        table.version,
        table.feature,
        table.state,
        table.samples,
        table.body["psi_corrected"],
    )
    rows = await tx.execute(select(*columns).where(table.scope.startswith("device:")))
    return tuple(facts.Drift(*row) for row in rows)


async def drift(tx: AsyncSession, model: str, version: str) -> tuple[facts.Drift, ...]:
    """Every verdict on one release, with its numbers."""
    table = tables.DriftState
    rows = await tx.scalars(select(table).where(table.model == model, table.version == version))
    return tuple(_drift(row) for row in rows)


async def drift_states(tx: AsyncSession) -> tuple[tuple[str, str, str], ...]:
    """(model, version, the gravest verdict) of every release that was compared, newest verdict first."""
    table = tables.DriftState
    newest = func.max(table.updated_at)
    query = select(table.model, table.version, table.state, newest).group_by(table.model, table.version, table.state)
    found: dict[tuple[str, str], str] = {}
    for model, version, state, _ in await tx.execute(query.order_by(newest.desc())):
        before = found.setdefault((model, version), state)
        found[model, version] = min(before, state, key=_GRAVEST.index)
    return tuple((model, version, state) for (model, version), state in found.items())


async def fleet_drift(tx: AsyncSession, model: str, version: str) -> tuple[facts.Drift, ...]:
    """Verdicts on one release on the whole fleet, with their numbers."""
    table = tables.DriftState
    rows = await tx.scalars(select(table).where(table.model == model, table.version == version, table.scope == "fleet"))
    return tuple(_drift(row) for row in rows)


async def moved(tx: AsyncSession, model: str, version: str, limit: int) -> tuple[tuple[facts.Drift, ...], int]:
    """The devices' verdicts that are not as the reference, worst first; and on how many devices something drifted."""
    table = tables.DriftState
    here = (table.model == model, table.version == version, table.scope.startswith("device:"))
    size = table.body["psi_corrected"].as_float()
    query = select(table).where(*here, table.state.in_(("drifted", "warning")))
    rows = await tx.scalars(query.order_by(table.state, size.desc(), table.scope).limit(limit))
    counted = select(func.count(table.scope.distinct())).where(*here, table.state == "drifted")
    return tuple(_drift(row) for row in rows), await tx.scalar(counted) or 0


def _drift(row: tables.DriftState) -> facts.Drift:
    return facts.Drift(
        scope=row.scope,
        model=row.model,
        version=row.version,
        feature=row.feature,
        state=row.state,
        samples=row.samples,
        psi=row.body.get("psi_corrected"),
        body=row.body,
    )


async def _alerts(tx: AsyncSession) -> tuple[facts.Alert, ...]:
    table = tables.Alert
    rows = await tx.scalars(select(table).where(table.state != "resolved").order_by(table.opened_at.desc()).limit(200))
    return tuple(
        facts.Alert(
            id=row.id,
            kind=row.kind,
            scope=row.scope,
            subject=row.subject,
            severity=row.severity,
            state=row.state,
            text=row.text,
            opened_at=row.opened_at,
            acknowledged_by=row.acknowledged_by,
        )
        for row in rows
    )


async def _failing(tx: AsyncSession) -> tuple[tuple[str, str], ...]:
    table = tables.ChannelState
    rows = await tx.execute(select(table.name, table.error).where(table.failures > 0).order_by(table.name))
    return tuple((name, (error or "")[:120]) for name, error in rows)


async def _events(tx: AsyncSession, limit: int) -> tuple[facts.Event, ...]:
    rows = await tx.scalars(select(tables.Event).order_by(tables.Event.sequence.desc()).limit(limit))
    return tuple(
        facts.Event(row.sequence, row.at, row.kind, row.level, row.subject, row.text, row.rollout_id) for row in rows
    )


async def _releases(tx: AsyncSession) -> tuple[facts.Release, ...]:
    table = tables.Release
    columns = (table.model, table.version, table.counter, table.state, table.withdrawn_at, table.withdrawn_reason)
    rows = await tx.execute(select(*columns))
    return tuple(facts.Release(*row[:4], None if row[4] is None else str(row[5] or "")) for row in rows)


async def withdrawn(tx: AsyncSession, model: str, version: str) -> str | None:
    """Why the release was withdrawn; None for one that was not."""
    row = await tx.get(tables.Release, (model, version))
    return None if row is None or row.withdrawn_at is None else row.withdrawn_reason or ""
