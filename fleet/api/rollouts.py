"""`/rollouts`: plan, start, look at, and steer.

I/O: none.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.rollouts import changing, forecast, plan, progress, reading, saved, verdicts
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.states import ALL_BACK, ENDED, Effect, State
from fleet.store import audit, gates, tables
from fleet.store import rollouts as store
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(prefix="/api/v1", tags=["rollouts"])

Read = Annotated[Actor, Depends(allow("rollouts:read"))]
Write = Annotated[Actor, Depends(allow("rollouts:write"))]
Approve = Annotated[Actor, Depends(allow("rollouts:approve"))]
Verb = Literal["pause", "resume", "promote", "abort", "rollback"]


class Steer(BaseModel):
    """Why, for the record; `effects` or `rollback` (of abort) say what the stop does: None is as the rollout was
    started."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=400)] = ""
    rollback: bool | None = None
    effects: tuple[Effect, ...] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Steer":
        if self.rollback is not None and self.effects is not None:
            raise ValueError("give effects or rollback, not both")
        return self


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
            return planned(await plan.make(tx, body, manager.settings, now, by=actor.who))
    async with manager.database.write() as tx:
        made = await plan.make(tx, body, manager.settings, now, by=actor.who)
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
    state: Literal["active"] | State | None = None,
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


@router.get("/rollouts/{rollout_id}/verdicts")
async def verdicts_(
    rollout_id: str,
    request: Request,
    _actor: Read,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """What the gate said and what it was said on, newest first."""
    after = decode_cursor(cursor)
    try:
        before = None if after is None else int(after[0])
    except (ValueError, TypeError, LookupError):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
    async with manager_of(request).database.read() as tx:
        if await store.get(tx, rollout_id) is None:
            raise RolloutNotFoundError(f"there is no rollout {rollout_id!r}")
        rows = await gates.verdicts(tx, rollout_id, before=before, limit=limit)
    last = [str(rows[-1].id)] if rows else None
    return paged([jsonable(verdicts.document(row)) for row in rows], limit=limit, cursor=last)


@router.post("/rollouts/{rollout_id}/approve")
async def approve(rollout_id: str, request: Request, actor: Approve, body: Steer = _NO_REASON) -> dict[str, Any]:
    """Let a rollout begin, or its next wave go. Where another person has to approve, its author cannot."""
    return await _changed(request, rollout_id, "approve", changing.approving(actor.who), actor, body)


@router.post("/rollouts/{rollout_id}/{verb}")
async def steer(
    rollout_id: str, verb: Verb, request: Request, actor: Write, body: Steer = _NO_REASON
) -> dict[str, Any]:
    """Pause, resume, promote (waive the bake, or end the shadow), abort, roll back."""
    return await _changed(request, rollout_id, verb, _change(verb, body, actor.name), actor, body)


async def _changed(
    request: Request, rollout_id: str, verb: str, decide: changing.Change, actor: Actor, body: Steer
) -> dict[str, Any]:
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        await changing.change(tx, rollout_id, decide, now)
        said = body.model_dump(mode="json", exclude_none=True)
        await audit.record(tx, actor=actor, action=f"rollout.{verb}", subject=rollout_id, body=said, now=now)
    manager.hub.wake()
    return await _view(request, rollout_id)


def _change(verb: Verb, body: Steer, by: str) -> changing.Change:
    match verb:
        case "pause":
            return changing.pausing(by)
        case "resume":
            return changing.resuming(by)
        case "promote":
            return changing.promoting(by)
        case "abort":
            return changing.aborting(_reason(body, "aborted", by), _effects(body))
        case "rollback":
            return changing.aborting(_reason(body, "rolled back", by), ALL_BACK)


def _effects(body: Steer) -> tuple[Effect, ...] | None:
    if body.rollback is None:
        return body.effects
    return ALL_BACK if body.rollback else (Effect.STOP_NEW,)


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
    return forecast.document(made)


def _summary(row: tables.Rollout, tally: dict[str, int] | Any) -> dict[str, Any]:
    rollout = saved.from_json(row.body)
    return {
        "id": row.id,
        "model": row.model,
        "version": row.version,
        "strategy": row.strategy,
        "state": row.state,
        "reason": row.reason,
        "priority": rollout.priority,
        "wave": rollout.wave + 1,
        "waves": len(rollout.waves),
        "devices": sum(tally.values()),
        "committed": 0 if row.state in ("rolling-back", "rolled-back") else tally.get("committed", 0),
        "ended": sum(number for state, number in tally.items() if state in ENDED),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
