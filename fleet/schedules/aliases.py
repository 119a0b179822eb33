"""Move an alias of a model, undo moves, and start what follows from it: one automatic update.

All of it is one transaction: alias, history, the schedule that brings the version to the devices that follow.

I/O: none.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import standing
from fleet.rollouts.errors import ReleaseNotFoundError
from fleet.schedules import engine, making
from fleet.schedules.errors import AliasNotFoundError, AliasUndoError
from fleet.schedules.states import State, from_json
from fleet.settings import FleetSettings
from fleet.store import events, releases, tables
from fleet.store import schedules as store


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of a move. `schedule` brings it to devices; None: nothing was to be done, or nobody asked for it."""

    alias: tables.Alias
    before: str | None
    schedule: str | None


async def move(
    tx: AsyncSession, model: str, name: str, version: str, settings: FleetSettings, *, by: str, now: datetime
) -> Moved:
    """The alias stands for `version` from now on. A second call changes nothing.

    Raises:
        ReleaseNotFoundError, WithdrawnError: it cannot stand for that.
    """
    known = await store.alias(tx, model, name)
    if known is not None and known.version == version:
        return Moved(known, version, None)
    return await _moved(tx, model, name, version, settings, by=by, now=now, undoes=False)


async def undo(tx: AsyncSession, model: str, name: str, settings: FleetSettings, *, by: str, now: datetime) -> Moved:
    """Back to what it stood for before its last move that is not undone; once more goes further back.

    Raises:
        AliasNotFoundError: no such alias.
        AliasUndoError: there is nothing before.
        ReleaseNotFoundError, WithdrawnError: what it stood for is gone.
    """
    if await store.alias(tx, model, name) is None:
        raise AliasNotFoundError(f"{model} has no alias {name!r}")
    last = next((it for it in await store.moves(tx, model, name) if not it.undone and not it.undoes), None)
    if last is None or last.before is None:
        raise AliasUndoError(f"{model} {name} stood for nothing before")
    last.undone = True
    return await _moved(tx, model, name, last.before, settings, by=by, now=now, undoes=True)


async def remove(tx: AsyncSession, model: str, name: str, *, by: str, now: datetime) -> None:
    """Nobody follows it any more. What is under way goes on.

    Raises:
        AliasNotFoundError: no such alias.
    """
    row = await store.alias(tx, model, name)
    if row is None:
        raise AliasNotFoundError(f"{model} has no alias {name!r}")
    await _supersede(tx, model, name, f"the alias was removed by {by}", now)
    tx.add(tables.AliasMove(model=model, name=name, before=row.version, version=None, by=by, at=now))
    await tx.delete(row)
    await _tell(tx, model, row.version, f"{model}: {name} removed by {by}; it was {row.version}", now)


async def _moved(
    tx: AsyncSession,
    model: str,
    name: str,
    version: str,
    settings: FleetSettings,
    *,
    by: str,
    now: datetime,
    undoes: bool,
) -> Moved:
    release = await releases.find(tx, model, version)
    if release is None:
        raise ReleaseNotFoundError(f"{model}@{version} was never published")
    standing.check(release)
    row = await store.alias(tx, model, name)
    before = row.version if row is not None else None
    if row is None:
        row = tables.Alias(model=model, name=name)
        tx.add(row)
    row.version, row.moved_by, row.moved_at = version, by, now
    tx.add(tables.AliasMove(model=model, name=name, before=before, version=version, by=by, at=now, undoes=undoes))
    was = f", it was {before}" if before else ""
    await _tell(
        tx, model, version, f"{model}: {name} is {version} now{was} ({'undone ' if undoes else ''}by {by})", now
    )
    await _supersede(tx, model, name, f"{name} moved on to {version}", now)
    if not settings.scheduling.enable_auto_updates:
        return Moved(row, before, None)
    wanted = {"target": {"channel": name}, "window": "settings"}
    schedule = await making.automatic(tx, model, version, wanted, settings, now)
    await making.add(tx, schedule, by=by, now=now)
    return Moved(row, before, schedule.id)


async def _supersede(tx: AsyncSession, model: str, name: str, because: str, now: datetime) -> None:
    """An automatic update of this alias that has not begun never will."""
    for row in await store.in_states(tx, [State.WAITING.value, State.QUEUED.value, State.PAUSED.value], model=model):
        schedule = from_json(row.body)
        target = schedule.request.get("target")
        if schedule.kind == "auto" and target == {"channel": name}:
            await making.save(tx, row, engine.cancelled(schedule, now, because), now)


async def _tell(tx: AsyncSession, model: str, version: str, text: str, now: datetime) -> None:
    await events.add(tx, kind="release", level="info", subject=f"{model}@{version}", text=text, now=now)
