"""The audit: every write, newest first, and the check of its chain.

I/O: none.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.store import audit
from fleet.store.tables import AuditRow
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(tags=["audit"])

_Reader = Annotated[Actor, Depends(allow("audit:read"))]


@router.get("/api/v1/audit", summary="Who did what, newest first")
async def list_audit(
    request: Request,
    _actor: _Reader,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    before = decode_cursor(cursor)
    if before is not None and not isinstance(before, int):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`")
    async with manager_of(request).database.read() as tx:
        rows = await audit.newest(tx, limit=limit, before=before)
    return paged([_view(row) for row in rows], limit=limit, cursor=rows[-1].sequence if rows else None)


@router.get("/api/v1/audit/verify", summary="Is the chain of hashes intact?")
async def verify_audit(request: Request, _actor: _Reader) -> dict[str, Any]:
    """`first_broken` is the first row that does not fit the one before it; keep `head` elsewhere, too."""
    async with manager_of(request).database.read() as tx:
        broken = await audit.first_broken(tx)
        newest = await audit.newest(tx, limit=1)
    head = {"sequence": newest[0].sequence, "hash": newest[0].hash} if newest else None
    return {"intact": broken is None, "first_broken": broken, "head": head}


def _view(row: AuditRow) -> dict[str, Any]:
    return {
        "sequence": row.sequence,
        "at": rfc3339(row.at),
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "request_id": row.request_id,
        "body": row.body,
        "hash": row.hash,
    }
