"""`/rollouts`: plan, start, look at, and steer.

I/O: none.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.rollouts import changing, plan, progress, reading, saved
from fleet.rollouts.states import ENDED
from fleet.store import audit, tables
from fleet.store import rollouts as store
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(prefix="/api/v1", tags=["rollouts"])

Read = Annotated[Actor, Depends(allow("rollouts:read"))]
Write = Annotated[Actor, Depends(allow("rollouts:write"))]
Verb = Literal["pause", "resume", "promote", "abort", "rollback"]


class Steer(BaseModel):
    """Why, for the record; `rollback` (of abort) says whether devices go back: None is as the rollout was started."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=400)] = ""
    rollback: bool | None = None


_NO_REASON: Final = Steer()


@router.post("/rollouts", status_code=201)
async def start(
    body: plan.Request, request: Request, response: Response, actor: Write, dry_run: bool = False
) -> dict[str, Any]:
    """Start a rollout, or with `dry_run` show what it would do."""
    manager = manager_of(request)
    now = manager.clock.now()
    if dry_run:
        async with manager.database.read() as tx:
            response.status_code = 200
            return planned(await plan.make(tx, body, manager.settings, now))
    async with manager.database.write() as tx:
        made = await plan.make(tx, body, manager.settings, now)
        rollout = await plan.start(tx, made, by=actor.name, now=now)
        said = body.model_dump(mode="json", exclude_none=True)
        await audit.record(tx, actor=actor, action="rollout.start", subject=rollout.id, body=said, now=now)
    manager.hub.wake()
    response.headers["Location"] = f"/api/v1/rollouts/{rollout.id}"
    return await _view(request, rollout.id)


@router.get("/rollouts")
async def list_(
    request: Request,
    _actor: Read,
    state: Annotated[str | None, Query(max_length=24)] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Rollouts, newest first. `state=active`: those in which something may still happen."""
    after = decode_cursor(cursor)
    async with manager_of(request).database.read() as tx:
        try:
            rows = await store.page(tx, state=state, model=model, after=after, limit=limit)
        except (ValueError, TypeError, LookupError):
            raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
        tallies = await store.tallies(tx, [row.id for row in rows])
    last = [rows[-1].created_at.isoformat(), rows[-1].id] if rows else None
    return paged([_summary(row, tallies.get(row.id, {})) for row in rows], limit=limit, cursor=last)


@router.get("/rollouts/{rollout_id}")
async def show(rollout_id: str, request: Request, _actor: Read) -> dict[str, Any]:
    """One rollout with its waves, devices, gates and timeline."""
    return await _view(request, rollout_id)


@router.post("/rollouts/{rollout_id}/{verb}")
async def steer(
    rollout_id: str, verb: Verb, request: Request, actor: Write, body: Steer = _NO_REASON
) -> dict[str, Any]:
    """Pause, resume, promote (waive the bake), abort, roll back."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await store.get(tx, rollout_id)
        auto = saved.from_json(row.body).auto_rollback if row is not None else True
        await changing.change(tx, rollout_id, _change(verb, body, actor.name, auto), now)
        said = body.model_dump(exclude_none=True)
        await audit.record(tx, actor=actor, action=f"rollout.{verb}", subject=rollout_id, body=said, now=now)
    manager.hub.wake()
    return await _view(request, rollout_id)


def _change(verb: Verb, body: Steer, by: str, auto_rollback: bool) -> changing.Change:
    match verb:
        case "pause":
            return changing.pausing(by)
        case "resume":
            return changing.resuming(by)
        case "promote":
            return changing.promoting(by)
        case "abort":
            back = auto_rollback if body.rollback is None else body.rollback
            return changing.aborting(_reason(body, "aborted", by), back=back)
        case "rollback":
            return changing.aborting(_reason(body, "rolled back", by), back=True)


def _reason(body: Steer, what: str, by: str) -> str:
    return f"{what} by {by}" + (f": {body.reason}" if body.reason else "")


async def _view(request: Request, rollout_id: str) -> dict[str, Any]:
    manager = manager_of(request)
    async with manager.database.read() as tx:
        return document(await reading.rollout_view(tx, rollout_id, manager.clock.now()))


def document(view: progress.RolloutView) -> dict[str, Any]:
    """The JSON form of one rollout."""
    found: dict[str, Any] = jsonable(asdict(view))
    return found


def jsonable(value: Any) -> Any:
    """`value` with every time in the form of the outside."""
    match value:
        case datetime():
            return rfc3339(value)
        case dict():
            return {key: jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case _:
            return value


def planned(made: plan.Plan) -> dict[str, Any]:
    """The JSON form of a plan."""
    rollout, offline = made.rollout, set(made.offline)
    return {
        "model": rollout.model,
        "version": rollout.version,
        "strategy": rollout.strategy,
        "devices": len(made.order),
        "reachable": len(made.order) - len(offline),
        "offline": list(made.offline),
        "already": list(made.already),
        "previous": sorted({version for version in made.previous.values() if version}),
        "bytes_each": made.bytes_each,
        "bytes_total": sum(made.bytes_by.values()),
        "by_delta": sum(size < made.bytes_each for size in made.bytes_by.values()),
        "waves": [
            {"index": i, "name": w.name, "target": w.target, "total": w.size} for i, w in enumerate(rollout.waves, 1)
        ],
        "bake_seconds": rollout.bake_seconds,
        "timeout_seconds": rollout.timeout_seconds,
        "auto_rollback": rollout.auto_rollback,
        "limits": asdict(rollout.limits),
    }


def _summary(row: tables.Rollout, tally: dict[str, int] | Any) -> dict[str, Any]:
    rollout = saved.from_json(row.body)
    return {
        "id": row.id,
        "model": row.model,
        "version": row.version,
        "strategy": row.strategy,
        "state": row.state,
        "reason": row.reason,
        "wave": rollout.wave + 1,
        "waves": len(rollout.waves),
        "devices": sum(tally.values()),
        "committed": 0 if row.state in ("rolling-back", "rolled-back") else tally.get("committed", 0),
        "ended": sum(number for state, number in tally.items() if state in ENDED),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
