"""`/schedules`: work for later. Create, look at, pause, resume, cancel.

I/O: none.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.schedules import engine, making, views
from fleet.schedules.errors import ScheduleNotFoundError
from fleet.schedules.states import TERMINAL, Schedule, State, from_json, to_json
from fleet.store import audit, events, tables
from fleet.store import schedules as store
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(prefix="/api/v1", tags=["schedules"])

Read = Annotated[Actor, Depends(allow("rollouts:read"))]
Write = Annotated[Actor, Depends(allow("rollouts:write"))]
Verb = Literal["pause", "resume", "cancel"]


@router.post("/schedules", status_code=201, summary="Schedule a rollout, once or by cron")
async def create(body: making.NewSchedule, request: Request, response: Response, actor: Write) -> dict[str, Any]:
    """It becomes a rollout when it is due: once, also if the manager was away for less than the grace."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        made = await making.planned(tx, body, manager.settings, by=actor.who, now=now)
        await making.add(tx, made, by=actor.who, now=now)
        said = to_json(made)
        await audit.record(tx, actor=actor, action="schedule.create", subject=made.id, body=said, now=now)
        text = f"{made.id}: {made.release} scheduled for {rfc3339(made.due)} by {actor.name}"
        await events.add(tx, kind="schedule", level="info", subject=made.id, text=text, now=now)
        row = await _found(tx, made.id)
    manager.hub.wake()
    response.headers["Location"] = f"/api/v1/schedules/{made.id}"
    return views.document(row)


@router.get("/schedules", summary="Schedules, newest first")
async def list_(
    request: Request,
    _actor: Read,
    state: Annotated[str, Query(max_length=16, description="`live`, `all`, or a state")] = "live",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """`live`: those in which something may still happen, paused ones too."""
    before = decode_cursor(cursor)
    if before is not None and not isinstance(before, str):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`")
    async with manager_of(request).database.read() as tx:
        rows = await store.newest(tx, states=_states(state), limit=limit, before=before)
    return paged([views.document(row) for row in rows], limit=limit, cursor=rows[-1].id if rows else None)


@router.get("/schedules/{schedule_id}", summary="One schedule")
async def show(schedule_id: str, request: Request, _actor: Read) -> dict[str, Any]:
    async with manager_of(request).database.read() as tx:
        return views.document(await _found(tx, schedule_id))


@router.post("/schedules/{schedule_id}/{verb}", summary="Pause, resume, cancel")
async def steer(schedule_id: str, verb: Verb, request: Request, actor: Write) -> dict[str, Any]:
    """A rollout that it made already goes on."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await _found(tx, schedule_id, lock=True)
        await making.save(tx, row, _step(from_json(row.body), verb, actor.name, now), now)
        await audit.record(tx, actor=actor, action=f"schedule.{verb}", subject=schedule_id, body={}, now=now)
    manager.hub.wake()
    return views.document(row)


def _step(schedule: Schedule, verb: Verb, by: str, now: datetime) -> engine.Step:
    match verb:
        case "pause":
            return engine.paused(schedule, now, by)
        case "resume":
            return engine.resumed(schedule, now, by)
        case "cancel":
            return engine.cancelled(schedule, now, f"by {by}")


def _states(said: str) -> list[str] | None:
    if said == "all":
        return None
    if said == "live":
        return [state.value for state in State if state not in TERMINAL]
    if said not in set(State):
        known = ", ".join(("live", "all", *State))
        raise BadInputError(f"there is no state {said[:40]!r}", remedy=f"use one of {known}")
    return [said]


async def _found(tx: Any, schedule_id: str, *, lock: bool = False) -> tables.Schedule:
    row = await store.get(tx, schedule_id, lock=lock)
    if row is None:
        raise ScheduleNotFoundError(f"there is no schedule {schedule_id[:40]!r}")
    return row
