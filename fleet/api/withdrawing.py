"""Withdraw a version from the fleet, and give it out again.

I/O: tasks.
"""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import Actor, allow, check_allowed, manager_of
from fleet.rollouts import withdrawing
from fleet.store import audit
from shared.identifiers import ModelName

router = APIRouter(prefix="/api/v1", tags=["models"])

_Writer = Annotated[Actor, Depends(allow("releases:withdraw"))]
_Reason = Annotated[str, Field(min_length=1, max_length=400)]


class Withdrawal(BaseModel):
    """Why; and whether devices that serve it go back, by the rollouts that brought it there."""

    model_config = ConfigDict(extra="forbid")

    reason: _Reason
    rollback: bool = False


class Restoring(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: _Reason


@router.post("/models/{name}/versions/{version}/withdraw", summary="Give a version to no device any more")
async def withdraw(
    name: ModelName, version: str, body: Withdrawal, request: Request, actor: _Writer, dry_run: bool = False
) -> dict[str, Any]:
    """Rollouts of it stop, devices on their way are called back; who serves it keeps it, unless `rollback`. The answer
    tells who serves it. With `dry_run` nothing is changed."""
    if body.rollback:
        check_allowed(actor, "rollouts:write")
    manager = manager_of(request)
    now = manager.clock.now()
    if dry_run:
        async with manager.database.read() as tx:
            return {**_told(await withdrawing.survey(tx, name, version), rollback=body.rollback), "dry_run": True}
    async with manager.database.write() as tx:
        found = await withdrawing.survey(tx, name, version)
        called = await withdrawing.withdraw(
            tx, manager.director, found, reason=body.reason, rollback=body.rollback, by=actor.name, now=now
        )
        said = {"reason": body.reason, "rollback": body.rollback, "stopped": list(found.stops)}
        await audit.record(tx, actor=actor, action="model.withdraw", subject=f"{name}@{version}", body=said, now=now)
    manager.hub.wake()
    for device in called:
        await manager.announcer.announce(device)
    return {**_told(found, rollback=body.rollback), "dry_run": False}


@router.post("/models/{name}/versions/{version}/restore", summary="Give a withdrawn version out again")
async def restore(name: ModelName, version: str, body: Restoring, request: Request, actor: _Writer) -> dict[str, Any]:
    """What was stopped stays stopped."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await withdrawing.restore(tx, name, version, reason=body.reason, by=actor.name, now=now)
        said = {"reason": body.reason}
        await audit.record(tx, actor=actor, action="model.restore", subject=f"{name}@{version}", body=said, now=now)
    manager.hub.wake()
    return {"model": row.model, "version": row.version, "state": row.state, "withdrawn": None}


def _told(found: withdrawing.Survey, *, rollback: bool) -> dict[str, Any]:
    return {**asdict(found), "rollback": rollback, "reverses": found.reverses if rollback else ()}
