"""Every write: who, what, when. Each row's hash covers the row and the hash before it.

I/O: none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.roles import Actor
from fleet.store.tables import AuditRow

#: The hash before the first row.
GENESIS: Final = "0" * 64


async def record(
    tx: AsyncSession, *, actor: Actor, action: str, subject: str, body: Mapping[str, Any], now: datetime
) -> None:
    """Append one row to the chain, in the same transaction as the write that it tells of.

    `body` must be JSON and hold no secret.
    """
    previous = await tx.scalar(select(AuditRow.hash).order_by(AuditRow.sequence.desc()).limit(1))
    row = AuditRow(
        at=now,
        actor=actor.name[:128],
        action=action[:64],
        subject=subject[:160],
        request_id=actor.request_id[:64],
        body=dict(body),
    )
    row.hash = digest(row, previous or GENESIS)
    tx.add(row)
    await tx.flush()


def digest(row: AuditRow, previous: str) -> str:
    """The hash of `row` after the row with hash `previous`."""
    said = [previous, row.at.isoformat(), row.actor, row.action, row.subject, row.request_id, row.body]
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def newest(tx: AsyncSession, *, limit: int, before: int | None = None) -> Sequence[AuditRow]:
    """Rows, newest first; `before` pages on."""
    query = select(AuditRow).order_by(AuditRow.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRow.sequence < before)
    return (await tx.scalars(query)).all()


async def first_broken(tx: AsyncSession) -> int | None:
    """The sequence of the first row whose hash does not fit; None when the whole chain is intact.

    A row removed from the middle shows at the row after it; rows cut off the end do not show here,
    so that an outside copy of the newest hash must be kept for that.
    """
    previous = GENESIS
    rows = await tx.stream_scalars(select(AuditRow).order_by(AuditRow.sequence).execution_options(yield_per=500))
    async for row in rows:
        if row.hash != digest(row, previous):
            return row.sequence
        previous = row.hash
    return None
