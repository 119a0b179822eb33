"""`/drift`: how live data differs from the reference data of each release.

I/O: none.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from fleet.api.context import Actor, allow, manager_of
from fleet.store import drift as store
from fleet.store import releases
from fleet.store.tables import DriftState
from fleet.telemetry import figures
from shared.clock import rfc3339

router = APIRouter(prefix="/api/v1", tags=["drift"])

Read = Annotated[Actor, Depends(allow("drift:read"))]
#: Left out of lists: only one feature at a time is drawn.
_LONG = frozenset({"edges", "counts", "reference", "quiet"})


@router.get("/drift")
async def list_(
    request: Request,
    _actor: Read,
    model: Annotated[str | None, Query(max_length=64)] = None,
    scope: Annotated[str | None, Query(max_length=80)] = None,
    state: Annotated[str | None, Query(max_length=16)] = None,
) -> dict[str, Any]:
    """The newest verdict on every feature, for each device and for the whole fleet."""
    async with manager_of(request).database.read() as tx:
        rows = await store.states(tx, model=model, scope=scope, state=state)
        withdrawn = await releases.withdrawn(tx, model)
    return {"items": [document(row) for row in rows], "withdrawn": withdrawn, "next_cursor": None}


@router.get("/drift/{model}")
async def show(
    model: str,
    request: Request,
    _actor: Read,
    scope: Annotated[str | None, Query(max_length=80)] = None,
) -> dict[str, Any]:
    """All features of one model, with the counts of window and reference over the same bins; and its performance."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        rows = await store.states(tx, model=model, scope=scope)
        withdrawn = await releases.withdrawn(tx, model)
    return {
        "model": model,
        "withdrawn": withdrawn,
        "items": [document(row, long=True) for row in rows],
        "performance": [figures.document(one) for one in manager.standings.of(model, scope=scope)],
        "next_cursor": None,
    }


def document(row: DriftState, *, long: bool = False) -> dict[str, Any]:
    """The JSON form of one verdict; statistics are described in docs/drift.md."""
    return {
        "scope": row.scope,
        "model": row.model,
        "version": row.version,
        "feature": row.feature,
        "state": row.state,
        "samples": row.samples,
        "since": rfc3339(row.since),
        "updated_at": rfc3339(row.updated_at),
        **{key: value for key, value in row.body.items() if long or key not in _LONG},
    }
