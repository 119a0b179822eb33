"""Queries about alerts.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Alert

#: States of alerts that are not over.
LIVE: Final = ("open", "silenced", "escalated", "acknowledged")


async def get(tx: AsyncSession, alert_id: str) -> Alert | None:
    """The alert with this id."""
    return await tx.get(Alert, alert_id)


async def live(tx: AsyncSession, *, kind: str, scope: str | None = None, subject: str | None = None) -> Sequence[Alert]:
    """Alerts that are not over, oldest first."""
    query = select(Alert).where(Alert.kind == kind, Alert.state.in_(LIVE)).order_by(Alert.opened_at)
    if scope is not None:
        query = query.where(Alert.scope == scope)
    if subject is not None:
        query = query.where(Alert.subject == subject)
    return (await tx.scalars(query)).all()


async def page(
    tx: AsyncSession,
    *,
    states: Sequence[str] = LIVE,
    kind: str | None = None,
    scope: str | None = None,
    after: Sequence[str] | None = None,
    limit: int,
) -> Sequence[Alert]:
    """Alerts, newest first; `after` is (opened_at in ISO form, id) of the last one of the page before."""
    query = select(Alert).where(Alert.state.in_(states)).order_by(Alert.opened_at.desc(), Alert.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(Alert.kind == kind)
    if scope is not None:
        query = query.where(Alert.scope == scope)
    if after is not None:
        when = datetime.fromisoformat(after[0])
        query = query.where(or_(Alert.opened_at < when, (Alert.opened_at == when) & (Alert.id < after[1])))
    return (await tx.scalars(query)).all()


async def all_live(tx: AsyncSession) -> Sequence[Alert]:
    """Every alert that is not over, oldest first."""
    return (await tx.scalars(select(Alert).where(Alert.state.in_(LIVE)).order_by(Alert.opened_at))).all()


async def count_live(tx: AsyncSession) -> int:
    """Alerts that are not over."""
    return await tx.scalar(select(func.count()).select_from(Alert).where(Alert.state.in_(LIVE))) or 0
