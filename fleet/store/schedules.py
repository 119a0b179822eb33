"""Queries about schedules, aliases and their moves.

I/O: none.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Alias, AliasMove, Schedule


async def get(tx: AsyncSession, schedule_id: str, *, lock: bool = False) -> Schedule | None:
    """The schedule with this id; with `lock` nobody else changes it before this transaction ends."""
    return await tx.get(Schedule, schedule_id, with_for_update=lock or None)


async def in_states(tx: AsyncSession, states: Collection[str], *, model: str | None = None) -> Sequence[Schedule]:
    """Schedules in one of these states, oldest first."""
    query = select(Schedule).where(Schedule.state.in_(states)).order_by(Schedule.created_at, Schedule.id)
    if model is not None:
        query = query.where(Schedule.model == model)
    return (await tx.scalars(query)).all()


async def newest(
    tx: AsyncSession, *, states: Collection[str] | None, limit: int, before: str | None
) -> Sequence[Schedule]:
    """Schedules, newest first; `before` is the id of the last one of the page before."""
    query = select(Schedule).order_by(Schedule.created_at.desc(), Schedule.id.desc()).limit(limit)
    if states is not None:
        query = query.where(Schedule.state.in_(states))
    last = await tx.get(Schedule, before) if before is not None else None
    if last is not None:
        same = (Schedule.created_at == last.created_at) & (Schedule.id < last.id)
        query = query.where((Schedule.created_at < last.created_at) | same)
    return (await tx.scalars(query)).all()


async def alias(tx: AsyncSession, model: str, name: str) -> Alias | None:
    """What an alias stands for now."""
    return await tx.get(Alias, (model, name))


async def aliases(tx: AsyncSession, model: str | None = None) -> Sequence[Alias]:
    """All aliases, of one model or of all."""
    query = select(Alias).order_by(Alias.model, Alias.name)
    return (await tx.scalars(query if model is None else query.where(Alias.model == model))).all()


async def moves(tx: AsyncSession, model: str, name: str, *, limit: int = 100) -> Sequence[AliasMove]:
    """The moves of an alias, newest first."""
    query = select(AliasMove).where(AliasMove.model == model, AliasMove.name == name)
    return (await tx.scalars(query.order_by(AliasMove.id.desc()).limit(limit))).all()
