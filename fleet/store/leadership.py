"""Who of several managers leads: one row, a term that grows, an end by the clock of the database.

    take  --term + 1-->  held  --renew-->  held  --release, or no renewal in time-->  free

For PostgreSQL alone: SQLite has one manager.

I/O: none.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Leadership

_ROW = 1


async def leader(tx: AsyncSession) -> Leadership | None:
    """Who leads now; None while nobody does."""
    return await tx.scalar(_query().where(~_over()))


async def take(tx: AsyncSession, *, holder: str, url: str, keys: str, lease: timedelta) -> int | None:
    """The new term, if nobody leads. Call it in a turn of `Database.write`, so that no turn of the last leader is open.

    Terms never come twice: the row stays when a lease ends.
    """
    row = await tx.scalar(_query())
    if row is None:
        row = Leadership(id=_ROW, term=0)
        tx.add(row)
    elif await leader(tx) is not None:
        return None
    row.term, row.holder, row.url, row.keys = row.term + 1, holder, url, keys
    row.expires_at = _now() + lease  # computed by the database
    await tx.flush()
    return row.term


async def holds(tx: AsyncSession, term: int) -> bool:
    """Whether the leader of `term` still leads."""
    found = await tx.scalar(select(Leadership.term).where(Leadership.term == term, ~_over()))
    return found is not None


async def renew(tx: AsyncSession, term: int, lease: timedelta) -> bool:
    """Another lease for `term`, unless somebody took over; also when it ended and nobody did."""
    return await _set_end(tx, term, lease)


async def release(tx: AsyncSession, term: int) -> bool:
    """End the lease of `term` at once."""
    return await _set_end(tx, term, timedelta())


async def _set_end(tx: AsyncSession, term: int, lease: timedelta) -> bool:
    changed: CursorResult[Any] = await tx.execute(  # type: ignore[assignment]  # what an UPDATE gives
        update(Leadership)
        .where(Leadership.term == term)
        .values(expires_at=_now() + lease)
        .execution_options(synchronize_session=False)
    )
    return changed.rowcount == 1


def _query() -> Select[Leadership]:
    return select(Leadership).where(Leadership.id == _ROW).execution_options(populate_existing=True)


def _now() -> ColumnElement[Any]:
    return func.clock_timestamp()


def _over() -> ColumnElement[bool]:
    return Leadership.expires_at <= _now()
