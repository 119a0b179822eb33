"""Queries about notices, the messages owed for them, and channels.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import AlertNotice, ChannelState, Delivery

#: Notices of one look; the next look takes the others.
MAX_NOTICES = 500


async def unsettled(tx: AsyncSession) -> Sequence[AlertNotice]:
    """Notices of which it was not decided yet who is told, oldest first."""
    query = select(AlertNotice).where(AlertNotice.settled_at.is_(None)).order_by(AlertNotice.id).limit(MAX_NOTICES)
    return (await tx.scalars(query)).all()


async def pending(tx: AsyncSession, channel: str | None = None) -> Sequence[Delivery]:
    """Messages that did not get through yet, oldest first."""
    query = select(Delivery).where(Delivery.state == "pending").order_by(Delivery.owed_at, Delivery.id)
    if channel is not None:
        query = query.where(Delivery.channel == channel)
    return (await tx.scalars(query)).all()


async def channels(tx: AsyncSession) -> Mapping[str, ChannelState]:
    """How each channel does; one that was never used is not there."""
    return {row.name: row for row in (await tx.scalars(select(ChannelState))).all()}


async def channel(tx: AsyncSession, name: str) -> ChannelState:
    """How one channel does; a new row where there is none."""
    row = await tx.get(ChannelState, name)
    if row is None:
        row = ChannelState(name=name, failures=0)
        tx.add(row)
        await tx.flush()
    return row


async def page(
    tx: AsyncSession,
    *,
    channel: str | None = None,
    state: str | None = None,
    after: Sequence[str] | None = None,
    limit: int,
) -> Sequence[Delivery]:
    """The delivery log, newest first; `after` is (owed_at in ISO form, id) of the last one of the page before."""
    query = select(Delivery).order_by(Delivery.owed_at.desc(), Delivery.id.desc()).limit(limit)
    if channel is not None:
        query = query.where(Delivery.channel == channel)
    if state is not None:
        query = query.where(Delivery.state == state)
    if after is not None:
        when = datetime.fromisoformat(after[0])
        query = query.where((Delivery.owed_at < when) | ((Delivery.owed_at == when) & (Delivery.id < after[1])))
    return (await tx.scalars(query)).all()


async def without(tx: AsyncSession, channels: Collection[str], now: datetime) -> None:
    """What waits for channels that are set up no more never gets there."""
    await tx.execute(delete(ChannelState).where(ChannelState.name.not_in(channels)))
    lost = update(Delivery).where(Delivery.state == "pending", Delivery.channel.not_in(channels))
    await tx.execute(lost.values(state="given-up", outcome="the channel is set up no more", settled_at=now))


async def forget(tx: AsyncSession, before: datetime) -> None:
    """Drop what was settled before: the log is for people, the audit and the alerts stay."""
    await tx.execute(delete(Delivery).where(Delivery.settled_at < before))
    await tx.execute(delete(AlertNotice).where(AlertNotice.settled_at < before))
