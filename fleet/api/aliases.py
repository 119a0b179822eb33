"""`/models/NAME/aliases`: names such as `stable` that stand for a version; and the cleanup of old versions.

I/O: disk, tasks.
"""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from fleet.api.context import Actor, allow, manager_of
from fleet.api.problems import NotFoundError
from fleet.schedules import aliases, views
from fleet.schedules.channels import AliasName
from fleet.schedules.sweep import Sweep
from fleet.store import audit, releases
from fleet.store import schedules as store
from shared.identifiers import ModelName, Version

router = APIRouter(prefix="/api/v1", tags=["models"])

_Reader = Annotated[Actor, Depends(allow("releases:read"))]
_Writer = Annotated[Actor, Depends(allow("rollouts:write"))]
_Releaser = Annotated[Actor, Depends(allow("releases:write"))]


class Move(BaseModel):
    """What the alias shall stand for."""

    model_config = ConfigDict(extra="forbid")

    version: Version


@router.get("/models/{name}/aliases", summary="The aliases of a model, with their moves")
async def list_aliases(name: ModelName, request: Request, _actor: _Reader) -> dict[str, Any]:
    """Newest move first."""
    async with manager_of(request).database.read() as tx:
        rows = await store.aliases(tx, name)
        if not rows and not await releases.of_model(tx, name):
            raise NotFoundError(f"no model {name!r} was published here", remedy="flotilla model list")
        return {"items": [views.alias(row, await store.moves(tx, name, row.name)) for row in rows]}


@router.put("/models/{name}/aliases/{alias}", summary="Let an alias stand for a version")
async def move(name: ModelName, alias: AliasName, body: Move, request: Request, actor: _Writer) -> dict[str, Any]:
    """With `scheduling.enable_auto_updates` the devices that follow it get the version, inside their windows."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        made = await aliases.move(tx, name, alias, body.version, manager.settings, by=actor.who, now=now)
        said = {"from": made.before, "to": body.version, "schedule": made.schedule}
        await audit.record(tx, actor=actor, action="alias.move", subject=f"{name} {alias}", body=said, now=now)
    manager.hub.wake()
    return _told(made)


@router.post("/models/{name}/aliases/{alias}/undo", summary="Undo the last move of an alias")
async def undo(name: ModelName, alias: AliasName, request: Request, actor: _Writer) -> dict[str, Any]:
    """Devices that follow it go back, as after any move."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        made = await aliases.undo(tx, name, alias, manager.settings, by=actor.who, now=now)
        said = {"from": made.before, "to": made.alias.version, "schedule": made.schedule}
        await audit.record(tx, actor=actor, action="alias.undo", subject=f"{name} {alias}", body=said, now=now)
    manager.hub.wake()
    return _told(made)


@router.delete("/models/{name}/aliases/{alias}", summary="Remove an alias")
async def remove(name: ModelName, alias: AliasName, request: Request, actor: _Writer) -> dict[str, Any]:
    """Devices keep what they have."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        await aliases.remove(tx, name, alias, by=actor.name, now=now)
        await audit.record(tx, actor=actor, action="alias.remove", subject=f"{name} {alias}", body={}, now=now)
    manager.hub.wake()
    return {"model": name, "alias": alias, "removed": True}


@router.post("/models/cleanup", summary="Retire old versions that nothing needs")
async def cleanup(request: Request, actor: _Releaser, dry_run: bool = False) -> dict[str, Any]:
    """Deletes their chunks. With `dry_run` only tells which, and why the others stay."""
    sweep = Sweep(manager_of(request))
    found = await sweep.plan() if dry_run else await sweep.sweep(actor)
    return {"items": [asdict(one) for one in found], "dry_run": dry_run}


def _told(made: aliases.Moved) -> dict[str, Any]:
    return {**views.alias(made.alias), "before": made.before, "schedule": made.schedule}
