"""Bearer tokens of programs, and of people without a password.

I/O: chance.
"""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.access.roles import Role
from fleet.access.secrets import new_id, new_secret
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import ConflictError, NotFoundError
from fleet.store import audit, tokens, users
from fleet.store.tables import Token, User
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(tags=["tokens"])

_Admin = Annotated[Actor, Depends(allow("tokens:write"))]
_TEN_YEARS = 3653 * 24 * 3600


class NewToken(BaseModel):
    """`expires_seconds` null: it is valid until somebody revokes it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    role: Role
    expires_seconds: Annotated[int, Field(ge=1, le=_TEN_YEARS)] | None = None


@router.post("/api/v1/tokens", status_code=201, summary="Make a token; it is shown once")
async def create_token(new: NewToken, request: Request, response: Response, actor: _Admin) -> dict[str, Any]:
    """With a person behind it, it is theirs: it ends with them, and approves nothing that they started."""
    manager = manager_of(request)
    now = manager.clock.now()
    secret = new_secret("token")
    _check_name(new.name)
    token = Token(
        id=new_id("to"),
        name=new.name,
        role=new.role,
        token_hash=manager.pepper.digest(secret),
        created_at=now,
        expires_at=now + timedelta(seconds=new.expires_seconds) if new.expires_seconds else None,
    )
    async with manager.database.write() as tx:
        owner = await users.by_name(tx, actor.person) if actor.person else None
        if owner is None and await users.by_name(tx, new.name) is not None:
            raise ConflictError(
                f"there is a user {new.name!r}, and the audit could not tell them apart", remedy="choose another name"
            )
        token.user_id = owner.id if owner is not None else None
        tx.add(token)
        body = {"name": new.name, "role": new.role}
        await audit.record(tx, actor=actor, action="token.create", subject=token.id, body=body, now=now)
    response.headers["Cache-Control"] = "no-store"
    return {**_view(token, actor.person or None), "token": secret}


@router.get("/api/v1/tokens", summary="Tokens, without the secrets")
async def list_tokens(
    request: Request,
    _actor: _Admin,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    after = decode_cursor(cursor)
    async with manager_of(request).database.read() as tx:
        rows = await tokens.page(tx, limit=limit, after=None if after is None else str(after))
    return paged([_view(row, name) for row, name in rows], limit=limit, cursor=rows[-1][0].id if rows else None)


@router.delete("/api/v1/tokens/{token_id}", summary="End a token at once")
async def revoke_token(token_id: str, request: Request, actor: _Admin) -> dict[str, Any]:
    """Browsers that signed in with it are signed out. The last admin stays."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        token = await tx.get(Token, token_id)
        if token is None:
            raise NotFoundError(f"there is no token {token_id[:40]!r}", remedy="see them all: flotilla token list")
        if (
            token.role == "admin"
            and tokens.alive(token, now)
            and not await users.other_admins(tx, now, without_token=token_id)
        ):
            raise ConflictError(
                "this is the last admin", remedy="make another first: flotilla user create NAME --role admin"
            )
        if token.revoked_at is None:
            token.revoked_at = now
            await audit.record(tx, actor=actor, action="token.revoke", subject=token_id, body={}, now=now)
        owner = await tx.get(User, token.user_id) if token.user_id else None
    return _view(token, owner.name if owner is not None else None)


def _check_name(name: str) -> None:
    if "/" in name or name.startswith("system:"):
        raise BadInputError(
            "a token's name has no slash and no `system:` in front: the audit writes USER/TOKEN and system:PART",
            remedy="choose another name",
        )


def _view(token: Token, person: str | None) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "person": person,
        "created_at": rfc3339(token.created_at),
        "expires_at": rfc3339(token.expires_at) if token.expires_at else None,
        "revoked_at": rfc3339(token.revoked_at) if token.revoked_at else None,
    }
