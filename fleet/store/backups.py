"""What is remembered of backups: a row in the audit log for each, since nobody else needs to know more.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.roles import Actor
from fleet.store import audit
from fleet.store.tables import AuditRow, Device

CREATED: Final = "backup.create"
RESTORED: Final = "backup.restore"
#: A backup that is older is told of.
OLD: Final = timedelta(days=7)


async def record(tx: AsyncSession, *, actor: Actor, body: Mapping[str, Any], now: datetime) -> None:
    """A whole backup was written."""
    await audit.record(tx, actor=actor, action=CREATED, subject="backup", body=body, now=now)


async def newest(tx: AsyncSession, *, limit: int = 1, before: int | None = None) -> Sequence[AuditRow]:
    """Backups that were made, newest first; `before` pages on."""
    query = select(AuditRow).where(AuditRow.action == CREATED).order_by(AuditRow.sequence.desc()).limit(limit)
    return (await tx.scalars(query if before is None else query.where(AuditRow.sequence < before))).all()


async def worry(tx: AsyncSession, now: datetime) -> str | None:
    """What is wrong with the backups of this manager, in words; None while all is well, or nothing is at stake."""
    if await tx.scalar(select(Device.id).limit(1)) is None:
        return None
    last = await newest(tx)
    if not last:
        return "there is no backup of this manager"
    age = now - last[0].at
    return f"the last backup is {age.days} days old" if age > OLD else None
