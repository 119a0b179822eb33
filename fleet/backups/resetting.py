"""What a database must forget when it was restored from a backup, and the floor that all its numbers start from.

Devices lived on after the backup: they have seen higher versions, assignments and counters, and may serve releases that
this database does not know. So nothing that was under way then goes on by itself: it could bring devices back.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select, text, update

from fleet.access.roles import system
from fleet.rollouts import changing, saved
from fleet.rollouts.states import Effect
from fleet.rollouts.states import State as RolloutState
from fleet.schedules import states
from fleet.store import audit, backups, rollouts, schedules, tables
from fleet.store import releases as store
from shared.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

_STOPPABLE = frozenset({RolloutState.AWAITING_APPROVAL, RolloutState.RUNNING, RolloutState.PAUSED})


@dataclass(frozen=True, slots=True)
class Reset:
    """What was stopped."""

    rollouts: Sequence[str]
    schedules: Sequence[str]


async def reset(tx: AsyncSession, *, backup_at: datetime, floor: int, now: datetime) -> Reset:
    """Make the rows of a backup those of a manager that comes back into a fleet that lived on."""
    why = f"the manager was restored from the backup of {backup_at:%Y-%m-%d %H:%M} UTC"
    await tx.execute(delete(tables.OwedAction).where(tables.OwedAction.performed_at.is_(None)))
    stopped = [row.id for row in await rollouts.active(tx)]
    for rollout_id in stopped:
        await _stop(tx, rollout_id, why, now)
    paused = await _pause(tx, why, now)
    await tx.execute(delete(tables.OwedAction).where(tables.OwedAction.performed_at.is_(None)))
    await _number(tx, floor, backup_at)
    await _tell(tx, why, floor, Reset(stopped, paused), now)
    return Reset(stopped, paused)


async def _stop(tx: AsyncSession, rollout_id: str, why: str, now: datetime) -> None:
    """Nothing more is announced or taken back; devices that were told keep what they have."""
    row = await rollouts.get(tx, rollout_id)
    if row is None:
        return
    found = saved.from_json(row.body)
    if found.state in _STOPPABLE:
        await changing.change(tx, rollout_id, changing.aborting(why, ()), now)
        return
    row.body = saved.to_json(replace(found, ending=(Effect.STOP_NEW,), reason=why))
    row.reason, row.updated_at = why, now
    await tx.flush()


async def _pause(tx: AsyncSession, why: str, now: datetime) -> list[str]:
    found = await schedules.in_states(tx, [str(state) for state in states.LIVE])
    for row in found:
        schedule = states.from_json(row.body)
        if schedule.state is states.State.RUNNING:  # its rollout was stopped just now
            schedule = schedule.moved(states.Event.AGAIN, now)
        schedule = schedule.moved(states.Event.PAUSE, now, why)
        row.body, row.state, row.updated_at = states.to_json(schedule), str(schedule.state), now
    await tx.flush()
    return [row.id for row in found]


async def _number(tx: AsyncSession, floor: int, backup_at: datetime) -> None:
    """All numbers start at the floor; what was signed below it is void."""
    await tx.execute(delete(tables.Metadata).where(tables.Metadata.role.in_(("snapshot", "timestamp"))))
    await store.save_document(tx, store.RESTORED, floor, rfc3339(backup_at).encode(), keep=None)
    await tx.execute(
        update(tables.Device)
        .values(assigned=None, assignment=floor, online=False)
        .execution_options(synchronize_session=False)
    )


async def _tell(tx: AsyncSession, why: str, floor: int, done: Reset, now: datetime) -> None:
    """In the feed, whose numbers go on from the floor, so that who follows it misses nothing; and in the audit log."""
    last = await tx.scalar(select(func.max(tables.Event.sequence))) or 0
    number = max(floor, last + 1)
    event = tables.Event(sequence=number, at=now, kind="release", level="warn", subject="backup", text=why)
    tx.add(event)
    await tx.flush()
    body = {"floor": floor, "rollouts": list(done.rollouts), "schedules": list(done.schedules)}
    await _sequences(tx)
    actor = system("restore")
    await audit.record(tx, actor=actor, action=backups.RESTORED, subject="backup", body=body, now=now)


async def _sequences(tx: AsyncSession) -> None:
    """PostgreSQL counts beside its tables: let it go on where the rows end."""
    if (await tx.connection()).dialect.name != "postgresql":
        return
    for table in tables.Base.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        highest = await tx.scalar(select(func.max(column)))
        place = await tx.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
        if highest is not None and place is not None:
            await tx.execute(
                text("SELECT setval(CAST(:place AS regclass), :highest)"), {"place": place, "highest": highest}
            )
