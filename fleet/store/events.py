"""What happened, in order: the activity feed and the source of `GET /events`.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Event

Level = Literal["ok", "info", "warn", "crit"]
Kind = Literal["device", "release", "rollout", "deployment", "drift", "alert", "schedule"]

MAX_TEXT: Final = 500


async def add(
    tx: AsyncSession,
    *,
    kind: Kind,
    level: Level,
    subject: str,
    text: str,
    rollout_id: str | None = None,
    now: datetime,
) -> None:
    """Append one line. It is seen by readers once `tx` commits; lines of one transaction keep their order."""
    tx.add(Event(at=now, kind=kind, level=level, subject=subject[:160], rollout_id=rollout_id, text=text[:MAX_TEXT]))


async def after(tx: AsyncSession, sequence: int, *, limit: int = 100, rollout_id: str | None = None) -> Sequence[Event]:
    """Lines that came after `sequence`, oldest first."""
    query = select(Event).where(Event.sequence > sequence).order_by(Event.sequence).limit(limit)
    if rollout_id is not None:
        query = query.where(Event.rollout_id == rollout_id)
    return (await tx.scalars(query)).all()


async def newest(
    tx: AsyncSession, *, limit: int = 100, before: int | None = None, rollout_id: str | None = None
) -> Sequence[Event]:
    """Lines, newest first; `before` pages on."""
    query = select(Event).order_by(Event.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(Event.sequence < before)
    if rollout_id is not None:
        query = query.where(Event.rollout_id == rollout_id)
    return (await tx.scalars(query)).all()


async def last(tx: AsyncSession) -> int:
    """The sequence of the newest line; 0 when there is none."""
    return await tx.scalar(select(func.max(Event.sequence))) or 0
