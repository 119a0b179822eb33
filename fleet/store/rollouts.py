"""Queries about rollouts, their devices, and the effects that they owe.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Deployment, Device, DriftState, OwedAction, Rollout, Window

#: States in which something may still happen by itself.
ACTIVE: Final = ("running", "paused", "aborting", "rolling-back")
#: Newest windows that a gate looks at.
MAX_WINDOWS: Final = 2000


async def get(tx: AsyncSession, rollout_id: str) -> Rollout | None:
    """The rollout with this id."""
    return await tx.get(Rollout, rollout_id)


async def active(tx: AsyncSession) -> Sequence[Rollout]:
    """Every rollout in which something may still happen, oldest first."""
    return (await tx.scalars(select(Rollout).where(Rollout.state.in_(ACTIVE)).order_by(Rollout.created_at))).all()


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


async def members(tx: AsyncSession, rollout_id: str) -> Sequence[tuple[Deployment, Device]]:
    """Every device of a rollout with its row, by wave."""
    query = (
        select(Deployment, Device)
        .join(Device, Device.id == Deployment.device_id)
        .where(Deployment.rollout_id == rollout_id)
        .order_by(Deployment.wave, Deployment.device_id)
    )
    return [(row[0], row[1]) for row in await tx.execute(query)]


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
    """The newest verdicts on a model's features on single devices."""
    query = select(DriftState).where(DriftState.model == model, DriftState.scope.startswith("device:"))
    return (await tx.scalars(query)).all()
