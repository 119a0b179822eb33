"""Queries about alerts.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Alert, UtcDateTime

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


class Movable(NamedTuple):
    """What decides on an alert's course, without its text and numbers: there may be many thousands."""

    id: str
    state: str
    since: datetime
    kind: str
    scope: str
    subject: str
    severity: str


async def movable(tx: AsyncSession, *, open_before: datetime, heard: bool) -> list[Movable]:
    """Silenced alerts, those that are open since before `open_before`; with `heard` all that a silence may cover."""
    since = func.coalesce(Alert.since, Alert.opened_at, type_=UtcDateTime)
    fitting = (Alert.state == "silenced") | ((Alert.state == "open") & (since <= open_before))
    if heard:
        fitting = fitting | Alert.state.in_(("open", "escalated"))
    query = select(Alert.id, Alert.state, since, Alert.kind, Alert.scope, Alert.subject, Alert.severity)
    return [Movable(*row) for row in await tx.execute(query.where(fitting).order_by(Alert.opened_at))]


async def count_live(tx: AsyncSession) -> int:
    """Alerts that are not over."""
    return await tx.scalar(select(func.count()).select_from(Alert).where(Alert.state.in_(LIVE))) or 0
