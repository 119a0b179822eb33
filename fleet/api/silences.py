"""`/silences`: which alerts are not told to anybody, until when, who said so and why.

I/O: chance.
"""

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.access.secrets import new_id
from fleet.alerts.matching import Matcher
from fleet.alerts.states import KINDS, AlertNotFoundError
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import NotFoundError
from fleet.store import alerts, audit
from fleet.store import silences as store
from fleet.store.tables import Silence
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(prefix="/api/v1", tags=["alerts"])

Read = Annotated[Actor, Depends(allow("alerts:read"))]
Write = Annotated[Actor, Depends(allow("alerts:write"))]
_YEAR = 366 * 24 * 3600


class SilenceNotFoundError(NotFoundError):
    """No silence has this id."""

    code = "E_SILENCE_UNKNOWN"
    default_remedy = "flotilla alert silences --all"


class NewSilence(BaseModel):
    """Either `matcher`, or the id of one `alert`: then exactly its cause is silenced."""

    model_config = ConfigDict(extra="forbid")

    matcher: Matcher | None = None
    alert: Annotated[str, Field(max_length=16)] | None = None
    seconds: Annotated[int, Field(ge=1, le=_YEAR)]
    comment: Annotated[str, Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.matcher is None) == (self.alert is None):
            raise ValueError("give either matcher or alert")
        kind = self.matcher.kind if self.matcher else None
        if kind is not None and not any(fnmatchcase(known, kind) for known in KINDS):
            raise ValueError(f"no alert is ever of the kind {kind!r}; kinds are {', '.join(KINDS)}")
        return self


@router.post("/silences", status_code=201)
async def create(new: NewSilence, request: Request, actor: Write) -> dict[str, Any]:
    """Alerts that fit are not told to anybody; they stay in the lists. Those that are open now are silenced at once."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        matcher = new.matcher
        if matcher is None:
            alert = await alerts.get(tx, new.alert or "")
            if alert is None:
                raise AlertNotFoundError(f"there is no alert {new.alert!r}")
            matcher = Matcher.exactly(alert.kind, alert.scope, alert.subject)
        row = Silence(
            id=new_id("si"),
            matcher=matcher.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
            comment=new.comment,
            created_by=actor.name,
            created_at=now,
            until=now + timedelta(seconds=new.seconds),
        )
        tx.add(row)
        body = {"matcher": row.matcher, "until": rfc3339(row.until), "comment": new.comment}
        await audit.record(tx, actor=actor, action="silence.create", subject=row.id, body=body, now=now)
    manager.hub.wake()
    return document(row)


@router.get("/silences")
async def list_(
    request: Request,
    _actor: Read,
    state: Annotated[str, Query(pattern="^(valid|all)$")] = "valid",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Silences, newest first; those that are over only with `state=all`."""
    after, manager = decode_cursor(cursor), manager_of(request)
    async with manager.database.read() as tx:
        try:
            rows = await store.page(tx, now=manager.clock.now(), over=state == "all", after=after, limit=limit)
        except (ValueError, TypeError, LookupError):
            raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
    last = [rows[-1].created_at.isoformat(), rows[-1].id] if rows else None
    return paged([document(row) for row in rows], limit=limit, cursor=last)


@router.delete("/silences/{silence_id}")
async def remove(silence_id: str, request: Request, actor: Write) -> dict[str, Any]:
    """End a silence now. Alerts that it covered are heard again. Once more is harmless."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        row = await store.get(tx, silence_id)
        if row is None:
            raise SilenceNotFoundError(f"there is no silence {silence_id[:40]!r}")
        if row.ended_at is None and row.until > now:
            row.ended_at, row.ended_by = now, actor.name
            await audit.record(tx, actor=actor, action="silence.remove", subject=row.id, body={}, now=now)
    manager.hub.wake()
    return document(row)


def document(row: Silence) -> dict[str, Any]:
    """The JSON form of one silence."""
    return {
        "id": row.id,
        "matcher": row.matcher,
        "comment": row.comment,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "until": rfc3339(row.until),
        "ended_by": row.ended_by,
        "ended_at": None if row.ended_at is None else rfc3339(row.ended_at),
    }
