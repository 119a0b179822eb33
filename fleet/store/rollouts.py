"""Queries about rollouts, their devices, and the effects that they owe.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Integer, Text, cast, func, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import NullType

from fleet.store.tables import Deployment, Device, DriftState, OwedAction, Rollout, Window
from shared.messages import Phase

#: States in which something may still happen by itself.
ACTIVE: Final = ("awaiting-approval", "running", "paused", "aborting", "rolling-back")
_ENDED: Final = (*(str(phase) for phase in Phase if phase.final), "timed-out")
_FETCHES: Final = ("queued", str(Phase.ANNOUNCED), str(Phase.VERIFIED), str(Phase.FETCHING))
#: Newest windows that a gate looks at.
MAX_WINDOWS: Final = 2000


async def get(tx: AsyncSession, rollout_id: str) -> Rollout | None:
    """The rollout with this id."""
    return await tx.get(Rollout, rollout_id)


async def active(tx: AsyncSession) -> Sequence[Rollout]:
    """Every rollout in which something may still happen: by priority, then the oldest first."""
    order = (Rollout.priority.desc(), Rollout.created_at, Rollout.id)
    return (await tx.scalars(select(Rollout).where(Rollout.state.in_(ACTIVE)).order_by(*order))).all()


async def page(
    tx: AsyncSession, *, state: str | None = None, model: str | None = None, after: Sequence[str] | None, limit: int
) -> Sequence[Rollout]:
    """Rollouts, newest first; `after` is (created_at in ISO form, id) of the last one of the page before."""
    query = select(Rollout).order_by(Rollout.created_at.desc(), Rollout.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Rollout.state.in_(ACTIVE) if state == "active" else Rollout.state == state)
    if model is not None:
        query = query.where(Rollout.model == model)
    if after is not None:
        when = datetime.fromisoformat(after[0])
        same = (Rollout.created_at == when) & (Rollout.id < after[1])
        query = query.where(or_(Rollout.created_at < when, same))
    return (await tx.scalars(query)).all()


class MemberRow(NamedTuple):
    """One device of a rollout: its row, and what is known of the device, as the database writes it into JSON."""

    device: str
    wave: int
    state: str
    reason: str | None
    detail: str | None
    previous: str | None
    outcome: str | None
    outcome_reason: str | None
    outcome_detail: str | None
    fetched_bytes: int | None
    total_bytes: int | None
    site: str
    hardware: str
    lifecycle: str
    serving: str | None  # version of the rollout's model
    online: bool | int
    since: str
    told_at: str | None
    switched_at: str | None
    recalled_at: str | None
    seen_at: str | None
    shadow: dict[str, Any] | str | None  # shared.messages.ShadowFigures
    sources: dict[str, int] | str | None  # bytes that came, by source


async def members(tx: AsyncSession, rollout_id: str, model: str) -> Sequence[str]:
    """The fields of a `MemberRow` as a JSON array for every device of a rollout, by wave. There may be a hundred
    thousand, so that nothing is made of them here: what did not change since the last look need not be made again,
    and one text is read and compared faster than each field."""
    row, device = Deployment, Device
    columns = (
        row.device_id, row.wave, row.state, row.reason, row.detail, row.previous, row.outcome, row.outcome_reason,
        row.outcome_detail, row.fetched_bytes, row.total_bytes, device.site, device.hardware, device.lifecycle,
        device.serving[model].as_string(), device.online, row.since, row.told_at, row.switched_at, row.recalled_at,
        device.seen_at, row.shadow, row.sources,
    )  # fmt: skip
    raw = NullType()  # SQLAlchemy's conversions cost more than the query
    fields = [type_coerce(column, raw) for column in columns]
    sqlite = tx.get_bind().dialect.name == "sqlite"
    text = func.json_array(*fields) if sqlite else cast(func.json_build_array(*fields), Text)
    query = select(text).join(Device, Device.id == Deployment.device_id)
    query = query.where(Deployment.rollout_id == rollout_id).order_by(Deployment.wave, Deployment.device_id)
    await tx.flush()
    connection = await tx.connection()
    return (await connection.scalars(query)).all()


async def pairs(tx: AsyncSession, rollout_id: str) -> Sequence[tuple[Deployment, Device]]:
    """Every device of a rollout with its way, as objects: for looks that need more than the engine does."""
    query = select(Deployment, Device).join(Device, Device.id == Deployment.device_id)
    return [(row[0], row[1]) for row in await tx.execute(query.where(Deployment.rollout_id == rollout_id))]


async def owing(tx: AsyncSession, rollout_id: str) -> frozenset[str]:
    """Devices to which an effect of the rollout is owed."""
    query = select(OwedAction.device_id).where(OwedAction.performed_at.is_(None), OwedAction.rollout_id == rollout_id)
    return frozenset((await tx.scalars(query)).all())


async def at_work_elsewhere(tx: AsyncSession, rollout_id: str) -> int:
    """Online devices that other active rollouts have at work; those that wait for a switch, or switch, are not."""
    others = select(Rollout.id).where(Rollout.state.in_(ACTIVE), Rollout.id != rollout_id)
    staged = Deployment.switched_at.is_(None) & (Deployment.state == str(Phase.SELF_TESTED))
    with_all = Deployment.switched_at.is_not(None) & (Deployment.switched_at != Deployment.told_at)
    waiting = (Rollout.strategy == "blue-green") & or_(staged, with_all)
    query = (
        select(func.count())
        .select_from(Deployment)
        .join(Device, Device.id == Deployment.device_id)
        .join(Rollout, Rollout.id == Deployment.rollout_id)
        .where(
            Deployment.rollout_id.in_(others),
            Deployment.told_at.is_not(None),
            Deployment.recalled_at.is_(None),
            Deployment.state.not_in(_ENDED),
            Device.online,
            ~waiting,
        )
    )
    return int(await tx.scalar(query) or 0)


async def lately(tx: AsyncSession, since: datetime) -> Sequence[Rollout]:
    """Rollouts that may draw on a line: active ones, and those that changed since."""
    query = select(Rollout).where(or_(Rollout.state.in_(ACTIVE), Rollout.updated_at > since))
    return (await tx.scalars(query)).all()


async def drawn(tx: AsyncSession, rollout_id: str, since: datetime) -> Sequence[tuple[str, int, int]]:
    """For each site: devices of the rollout that may be downloading, and those that were told since."""
    flies = Deployment.recalled_at.is_(None) & Deployment.state.in_(_FETCHES)
    query = (
        select(Device.site, func.sum(cast(flies, Integer)), func.sum(cast(Deployment.told_at > since, Integer)))
        .join(Device, Device.id == Deployment.device_id)
        .where(Deployment.rollout_id == rollout_id, Deployment.told_at.is_not(None))
        .group_by(Device.site)
    )
    return [(row[0], int(row[1] or 0), int(row[2] or 0)) for row in await tx.execute(query)]


async def busy(tx: AsyncSession, devices: Collection[str]) -> Mapping[str, Sequence[str]]:
    """Device -> active rollouts that it takes part in."""
    query = (
        select(Deployment.device_id, Deployment.rollout_id)
        .join(Rollout, Rollout.id == Deployment.rollout_id)
        .where(Rollout.state.in_(ACTIVE))
    )
    wanted, found = set(devices), dict[str, list[str]]()
    for device, rollout in await tx.execute(query):
        if device in wanted:
            found.setdefault(device, []).append(rollout)
    return found


async def tallies(tx: AsyncSession, rollout_ids: Collection[str]) -> Mapping[str, Mapping[str, int]]:
    """Rollout -> state of its devices -> how many."""
    query = (
        select(Deployment.rollout_id, Deployment.state, func.count())
        .where(Deployment.rollout_id.in_(rollout_ids))
        .group_by(Deployment.rollout_id, Deployment.state)
    )
    found: dict[str, dict[str, int]] = {}
    for row in await tx.execute(query):
        found.setdefault(row[0], {})[row[1]] = row[2]
    return found


async def owed(tx: AsyncSession, *, rollout_id: str | None = None, limit: int = 1000) -> Sequence[OwedAction]:
    """Effects that were decided and not yet performed, in order."""
    query = select(OwedAction).where(OwedAction.performed_at.is_(None)).order_by(OwedAction.id).limit(limit)
    if rollout_id is not None:
        query = query.where(OwedAction.rollout_id == rollout_id)
    return (await tx.scalars(query)).all()


async def windows(tx: AsyncSession, model: str, *, since: datetime, limit: int = MAX_WINDOWS) -> Sequence[Window]:
    """The newest windows of a model that came since, oldest first."""
    query = (
        select(Window)
        .where(Window.model == model, Window.received_at >= since)
        .order_by(Window.received_at.desc(), Window.sequence.desc())
        .limit(limit)
    )
    return tuple(reversed((await tx.scalars(query)).all()))


async def drift(tx: AsyncSession, model: str) -> Sequence[DriftState]:
    """The newest verdicts on a model's features, on single devices and on groups of them."""
    query = select(DriftState).where(DriftState.model == model)
    return (await tx.scalars(query)).all()
