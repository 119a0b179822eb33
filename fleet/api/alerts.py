"""`/alerts`: what needs a person.

I/O: none.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.alerts import desk
from fleet.alerts.states import AlertNotFoundError
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.store import alerts as store
from fleet.store import audit
from fleet.store.tables import Alert
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(prefix="/api/v1", tags=["alerts"])

Read = Annotated[Actor, Depends(allow("alerts:read"))]
Write = Annotated[Actor, Depends(allow("alerts:write"))]


class Words(BaseModel):
    """A note for the others."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(max_length=1000)] | None = None


_NOTHING: Final = Words()
_STATES: Final = {"live": store.LIVE, "all": (*store.LIVE, "resolved")}


@router.get("/alerts")
async def list_(
    request: Request,
    _actor: Read,
    state: Literal["live", "all", "open", "silenced", "escalated", "acknowledged", "resolved"] = "live",
    kind: Annotated[str | None, Query(max_length=32)] = None,
    scope: Annotated[str | None, Query(max_length=80)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Alerts, newest first; those that are over only with `state=all` or `state=resolved`."""
    after = decode_cursor(cursor)
    async with manager_of(request).database.read() as tx:
        try:
            states = _STATES.get(state, (state,))
            rows = await store.page(tx, states=states, kind=kind, scope=scope, after=after, limit=limit)
        except (ValueError, TypeError, LookupError):
            raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
    last = [rows[-1].opened_at.isoformat(), rows[-1].id] if rows else None
    return paged([document(row) for row in rows], limit=limit, cursor=last)


@router.get("/alerts/{alert_id}")
async def show(alert_id: str, request: Request, _actor: Read) -> dict[str, Any]:
    """One alert."""
    async with manager_of(request).database.read() as tx:
        row = await store.get(tx, alert_id)
    if row is None:
        raise AlertNotFoundError(f"there is no alert {alert_id!r}")
    return document(row)


@router.post("/alerts/{alert_id}/ack")
async def acknowledge(alert_id: str, request: Request, actor: Write, body: Words = _NOTHING) -> dict[str, Any]:
    """Say that you look after it."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await desk.acknowledge(tx, alert_id, by=actor.name, note=body.note, now=now)
        await audit.record(tx, actor=actor, action="alert.ack", subject=alert_id, body=body.model_dump(), now=now)
    manager.hub.wake()
    return document(row)


@router.post("/alerts/{alert_id}/resolve")
async def resolve(alert_id: str, request: Request, actor: Write, body: Words = _NOTHING) -> dict[str, Any]:
    """Say that it is over. If its cause goes on, a new alert opens."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await desk.resolve(tx, alert_id, by=actor.name, note=body.note, now=now)
        await audit.record(tx, actor=actor, action="alert.resolve", subject=alert_id, body=body.model_dump(), now=now)
    manager.hub.wake()
    return document(row)


def document(alert: Alert) -> dict[str, Any]:
    """The JSON form of one alert."""
    return {
        "id": alert.id,
        "kind": alert.kind,
        "scope": alert.scope,
        "subject": alert.subject,
        "severity": alert.severity,
        "state": alert.state,
        "text": alert.text,
        "body": alert.body,
        "note": alert.note,
        "acknowledged_by": alert.acknowledged_by,
        "since": rfc3339(alert.since or alert.opened_at),
        "told_at": None if alert.told_at is None else rfc3339(alert.told_at),
        "opened_at": rfc3339(alert.opened_at),
        "updated_at": rfc3339(alert.updated_at),
        "resolved_at": None if alert.resolved_at is None else rfc3339(alert.resolved_at),
    }
