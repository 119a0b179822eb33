"""Claim tokens, by which devices enrol themselves.

I/O: chance.
"""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.access.secrets import new_id, new_secret
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.devices import Labels
from fleet.api.problems import NotFoundError
from fleet.schedules import labels
from fleet.store import audit, devices
from fleet.store.tables import Invite
from shared.clock import rfc3339

router = APIRouter(tags=["invites"])

_Writer = Annotated[Actor, Depends(allow("invites:write"))]
_YEAR = 366 * 24 * 3600


class NewInvite(BaseModel):
    """Who may come in with it, and how often."""

    model_config = ConfigDict(extra="forbid")

    uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    expires_seconds: Annotated[int, Field(ge=1, le=_YEAR)] | None = None
    site: Annotated[str, Field(max_length=128)] = ""
    labels: Labels = Field(default_factory=dict)
    auto_accept: bool = True


@router.post("/api/v1/invites", status_code=201, summary="Make a claim token; it is shown once")
async def create_invite(new: NewInvite, request: Request, response: Response, actor: _Writer) -> dict[str, Any]:
    """256 random bits. The manager keeps only a keyed hash."""
    manager = manager_of(request)
    now = manager.clock.now()
    seconds = new.expires_seconds or manager.settings.enrolment.invite_hours * 3600
    token = new_secret("claim")
    invite = Invite(
        id=new_id("in"),
        token_hash=manager.pepper.digest(token),
        site=new.site,
        labels=labels.checked(new.labels),
        auto_accept=new.auto_accept,
        uses_left=new.uses,
        created_by=actor.name,
        created_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )
    async with manager.database.write() as tx:
        tx.add(invite)
        body = {"uses": new.uses, "site": new.site, "labels": new.labels, "auto_accept": new.auto_accept}
        await audit.record(tx, actor=actor, action="invite.create", subject=invite.id, body=body, now=now)
    response.headers["Cache-Control"] = "no-store"
    return {**_view(invite), "token": token, "manager_url": manager.manager_url}


@router.get("/api/v1/invites", summary="Claim tokens, without the tokens")
async def list_invites(
    request: Request,
    _actor: _Writer,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    after = decode_cursor(cursor)
    async with manager_of(request).database.read() as tx:
        rows = await devices.invites(tx, limit=limit, after=None if after is None else str(after))
    return paged([_view(row) for row in rows], limit=limit, cursor=rows[-1].id if rows else None)


@router.delete("/api/v1/invites/{invite_id}", summary="Make a claim token useless")
async def delete_invite(invite_id: str, request: Request, actor: _Writer) -> dict[str, Any]:
    manager = manager_of(request)
    async with manager.database.write() as tx:
        invite = await tx.get(Invite, invite_id)
        if invite is None:
            raise NotFoundError(f"there is no invite {invite_id[:40]!r}", remedy="see them all: GET /api/v1/invites")
        await tx.delete(invite)
        await audit.record(tx, actor=actor, action="invite.delete", subject=invite_id, body={}, now=manager.clock.now())
    return {"id": invite_id, "deleted": True}


def _view(invite: Invite) -> dict[str, Any]:
    return {
        "id": invite.id,
        "site": invite.site,
        "labels": invite.labels,
        "auto_accept": invite.auto_accept,
        "uses_left": invite.uses_left,
        "created_by": invite.created_by,
        "created_at": rfc3339(invite.created_at),
        "expires_at": rfc3339(invite.expires_at),
    }
