"""Queries about silences.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Silence


async def get(tx: AsyncSession, silence_id: str) -> Silence | None:
    """The silence with this id."""
    return await tx.get(Silence, silence_id)


async def valid(tx: AsyncSession, now: datetime) -> Sequence[Silence]:
    """Silences that nobody ended and that are not over."""
    query = select(Silence).where(Silence.until > now, Silence.ended_at.is_(None)).order_by(Silence.created_at)
    return (await tx.scalars(query)).all()


async def page(
    tx: AsyncSession, *, now: datetime, over: bool, after: Sequence[str] | None, limit: int
) -> Sequence[Silence]:
    """Silences, newest first; those that are over only on request. `after` is (created_at, id) of the last one."""
    query = select(Silence).order_by(Silence.created_at.desc(), Silence.id.desc()).limit(limit)
    if not over:
        query = query.where(Silence.until > now, Silence.ended_at.is_(None))
    if after is not None:
        when = datetime.fromisoformat(after[0])
        query = query.where((Silence.created_at < when) | ((Silence.created_at == when) & (Silence.id < after[1])))
    return (await tx.scalars(query)).all()
