"""Rows of the gate: habits of devices, comparisons, verdicts, answers of webhooks.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.rollouts import ACTIVE
from fleet.store.tables import Habit, HookState, Rollout, TrialState, Verdict

#: Verdicts of one rollout that are kept: the newest.
MAX_VERDICTS: Final = 1000


async def trials(tx: AsyncSession, rollout_id: str) -> TrialState | None:
    """The comparisons of a rollout."""
    return await tx.get(TrialState, rollout_id)


async def hook(tx: AsyncSession, rollout_id: str) -> HookState | None:
    """What the webhook of a rollout last said."""
    return await tx.get(HookState, rollout_id)


async def put_habits(tx: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert habits, or replace those that a crash left unready."""
    if not rows:
        return
    devices = [row["device_id"] for row in rows]
    await tx.execute(delete(Habit).where(Habit.rollout_id == rows[0]["rollout_id"], Habit.device_id.in_(devices)))
    await tx.execute(insert(Habit), list(rows))


async def complete_habits(tx: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Fill in rates; each row names rollout_id and device_id."""
    if rows:
        await tx.execute(update(Habit), list(rows))


async def save_verdict(tx: AsyncSession, rollout_id: str, at: datetime, result: str, body: dict[str, Any]) -> None:
    """One more; those beyond `MAX_VERDICTS` of this rollout go, oldest first."""
    tx.add(Verdict(rollout_id=rollout_id, at=at, result=result, body=body))
    await tx.flush()
    oldest = select(Verdict.id).where(Verdict.rollout_id == rollout_id).order_by(Verdict.id.desc())
    edge = await tx.scalar(oldest.offset(MAX_VERDICTS).limit(1))
    if edge is not None:
        await tx.execute(delete(Verdict).where(Verdict.rollout_id == rollout_id, Verdict.id <= edge))


async def last_verdict(tx: AsyncSession, rollout_id: str) -> Verdict | None:
    """The newest one."""
    query = select(Verdict).where(Verdict.rollout_id == rollout_id).order_by(Verdict.id.desc()).limit(1)
    return await tx.scalar(query)


async def verdicts(tx: AsyncSession, rollout_id: str, *, before: int | None, limit: int) -> Sequence[Verdict]:
    """Verdicts of a rollout, newest first; those older than the one with id `before`."""
    query = select(Verdict).where(Verdict.rollout_id == rollout_id).order_by(Verdict.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Verdict.id < before)
    return (await tx.scalars(query)).all()


async def prune(tx: AsyncSession, *, verdicts_before: datetime, ended_before: datetime) -> int:
    """Forget old verdicts, and the habits of rollouts that have been over for a while. How many rows that were."""
    over = select(Rollout.id).where(Rollout.state.not_in(ACTIVE), Rollout.updated_at < ended_before)
    removed = 0
    for statement in (
        delete(Verdict).where(Verdict.at < verdicts_before),
        delete(Habit).where(Habit.rollout_id.in_(over)),
    ):
        removed += int(getattr(await tx.execute(statement), "rowcount", 0))
    return removed
