"""Answer a repeated POST as it was answered before: the memory behind `Idempotency-Key`.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from fleet.store.tables import Answer

if TYPE_CHECKING:
    from datetime import datetime

    from fleet.store.database import Database

KEPT: Final = timedelta(hours=24)
#: A request that is at work for longer has lost its manager: its key is free again.
ABANDONED: Final = timedelta(minutes=5)
#: The body of an answer that held a secret and was therefore not kept.
NOT_KEPT: Final = None


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of a key that was used before. `status` None: the first request is still at work."""

    request_hash: str
    status: int | None
    body: str | None


class Answers:
    """One row for each key of each caller, kept for a day."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, key: str, request_hash: str, now: datetime) -> Before | None:
        """Take `key` for this request (None), or say what became of the request that had it before."""
        async with self._database.write() as tx:
            await tx.execute(delete(Answer).where(Answer.at < now - KEPT))
            await tx.execute(delete(Answer).where(Answer.status.is_(None), Answer.at < now - ABANDONED))
            row = await tx.scalar(select(Answer).where(Answer.key == key))
            if row is not None:
                return Before(row.request_hash, row.status, row.body)
            tx.add(Answer(key=key, request_hash=request_hash, status=None, body=None, at=now))
        return None

    async def finish(self, key: str, status: int, body: str | None) -> None:
        """Remember the answer."""
        async with self._database.write() as tx:
            row = await tx.get(Answer, key)
            if row is not None:
                row.status, row.body = status, body

    async def forget(self, key: str) -> None:
        """The request failed on our side: it may be tried again."""
        async with self._database.write() as tx:
            await tx.execute(delete(Answer).where(Answer.key == key))

    async def forget_unfinished(self) -> None:
        """At start of the only manager: what was at work when it ended will never answer."""
        async with self._database.write() as tx:
            await tx.execute(delete(Answer).where(Answer.status.is_(None)))
