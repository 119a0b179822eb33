"""`/baselines`: what releases are compared with.

I/O: none.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import Actor, allow, manager_of
from fleet.store import audit
from fleet.store import sketches as sketch_store
from fleet.telemetry import choosing
from fleet.telemetry.choosing import Subject
from fleet.telemetry.finding import FLEET
from shared.clock import rfc3339

router = APIRouter(prefix="/api/v1", tags=["baselines"])

Read = Annotated[Actor, Depends(allow("drift:read"))]
Write = Annotated[Actor, Depends(allow("drift:write"))]
Scope = Annotated[str, Field(max_length=80, pattern=r"^(fleet|(device|site|hardware):.+)$")]


class Pin(BaseModel):
    """Keep it as it is, or let it change again."""

    model_config = ConfigDict(extra="forbid")

    scope: Scope = FLEET
    pinned: bool = True


class Relearn(BaseModel):
    """From the last so many days; None: as many as `drift_detection.baseline_window_days`."""

    model_config = ConfigDict(extra="forbid")

    scope: Scope = FLEET
    days: Annotated[int, Field(ge=1, le=400)] | None = None


_PIN: Final = Pin()
_RELEARN: Final = Relearn()


@router.get("/baselines")
async def list_(request: Request, _actor: Read) -> dict[str, Any]:
    """Every baseline that somebody pinned or learned anew; all others are those of their releases."""
    async with manager_of(request).database.read() as tx:
        rows = await sketch_store.choices(tx)
    items = [
        {
            "scope": row.scope,
            "model": row.model,
            "version": row.version,
            "source": "release" if row.vector is None else "learned",
            "pinned": row.pinned,
            "chosen_by": row.chosen_by,
            "chosen_at": rfc3339(row.chosen_at),
        }
        for row in rows
    ]
    return {"items": items, "next_cursor": None}


@router.get("/baselines/{model}/{version}")
async def show(
    model: str,
    version: str,
    request: Request,
    _actor: Read,
    scope: Annotated[str, Query(max_length=80)] = FLEET,
) -> dict[str, Any]:
    """One baseline with its counts, and how much ordinary days differ from each other."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        return await choosing.show(tx, Subject(scope, model, version), manager.settings.drift_detection)


@router.post("/baselines/{model}/{version}/pin")
async def pin(model: str, version: str, request: Request, actor: Write, body: Pin = _PIN) -> dict[str, Any]:
    """Keep a baseline and the ordinary days as they are, or let them change again."""
    manager, subject = manager_of(request), Subject(body.scope, model, version)
    settings, now = manager.settings.drift_detection, manager.clock.now()
    async with manager.database.write() as tx:
        await choosing.pin(tx, subject, settings, pinned=body.pinned, by=actor.name, now=now)
        await audit.record(
            tx, actor=actor, action="baseline.pin", subject=f"{model}@{version}", body=body.model_dump(), now=now
        )
        await tx.flush()
        found = await choosing.show(tx, subject, settings)
    manager.hub.wake()
    return found


@router.post("/baselines/{model}/{version}/relearn")
async def relearn(model: str, version: str, request: Request, actor: Write, body: Relearn = _RELEARN) -> dict[str, Any]:
    """Compare with the scope's own last days from now on."""
    manager, subject = manager_of(request), Subject(body.scope, model, version)
    settings, now = manager.settings.drift_detection, manager.clock.now()
    days = body.days or settings.baseline_window_days
    async with manager.database.write() as tx:
        await choosing.relearn(tx, subject, settings, days=days, by=actor.name, now=now)
        await audit.record(
            tx, actor=actor, action="baseline.relearn", subject=f"{model}@{version}", body=body.model_dump(), now=now
        )
        await tx.flush()
        found = await choosing.show(tx, subject, settings)
    manager.hub.wake()
    return found
