"""People who sign in with name and password.

I/O: tasks, chance.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.passwords import MOST_CHARACTERS, check_new
from fleet.access.roles import Role
from fleet.access.secrets import new_id
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import ConflictError, NotFoundError
from fleet.store import audit, tokens
from fleet.store import users as store
from fleet.store.tables import Token, User
from shared.clock import rfc3339

router = APIRouter(tags=["users"])

_Admin = Annotated[Actor, Depends(allow("users:write"))]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@+-]{0,63}$")]
_Password = Annotated[str, Field(min_length=1, max_length=4 * MOST_CHARACTERS)]
_Seconds = Annotated[int, Field(ge=1, le=3653 * 24 * 3600)]


class NewUser(BaseModel):
    """`expires_seconds` null: until somebody revokes them."""

    model_config = ConfigDict(extra="forbid")

    name: _Name
    role: Role
    password: _Password
    expires_seconds: _Seconds | None = None


class UserChange(BaseModel):
    """What is not given stays as it is."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    password: _Password | None = None
    expires_seconds: _Seconds | None = None


@router.get("/api/v1/users", summary="People, by name")
async def list_users(
    request: Request,
    _actor: _Admin,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Those who were revoked as well: their names are in the audit."""
    manager = manager_of(request)
    after = decode_cursor(cursor)
    async with manager.database.read() as tx:
        rows = await store.page(tx, limit=limit, after=None if after is None else str(after))
    items = [_view(row, manager.clock.now()) for row in rows]
    return paged(items, limit=limit, cursor=rows[-1].name if rows else None)


@router.post("/api/v1/users", status_code=201, summary="Let a person in")
async def create_user(new: NewUser, request: Request, actor: _Admin) -> dict[str, Any]:
    """The password is not shown again, and not kept: only its argon2id hash is."""
    manager = manager_of(request)
    check_new(new.password, new.name)
    stored = await manager.sign_ins.passwords.hashed(new.password)
    now = manager.clock.now()
    user = User(
        id=new_id("us"),
        name=new.name,
        role=new.role,
        password_hash=stored,
        created_by=actor.name,
        created_at=now,
        password_at=now,
        expires_at=now + timedelta(seconds=new.expires_seconds) if new.expires_seconds else None,
    )
    async with manager.database.write() as tx:
        await _check_free(tx, new.name, now)
        tx.add(user)
        body = {"role": new.role, "expires_at": rfc3339(user.expires_at) if user.expires_at else None}
        await audit.record(tx, actor=actor, action="user.create", subject=user.name, body=body, now=now)
    manager.hub.wake()
    return _view(user, now)


@router.get("/api/v1/users/{name}", summary="One person, where they are signed in, and their tokens")
async def show_user(name: str, request: Request, _actor: _Admin) -> dict[str, Any]:
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.read() as tx:
        user = await _found(tx, name)
        return {**_view(user, now), **await _open(tx, user, now)}


@router.patch("/api/v1/users/{name}", summary="Another role, password or end")
async def change_user(name: str, change: UserChange, request: Request, actor: _Admin) -> dict[str, Any]:
    """Another role ends their sign-ins and their tokens, another password their sign-ins."""
    manager = manager_of(request)
    stored = None
    if change.password is not None:
        check_new(change.password, name)
        stored = await manager.sign_ins.passwords.hashed(change.password)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        user = await _found(tx, name)
        if user.revoked_at is not None:
            raise _gone(user)
        said: dict[str, Any] = {"password": "changed"} if stored else {}
        if stored is not None:
            user.password_hash, user.password_at = stored, now
            await store.end_sign_ins(tx, user.id, now)
        if change.role is not None and change.role != user.role:
            if user.role == "admin":
                await _check_last(tx, user, now)
            said["role"] = {"from": user.role, "to": change.role}
            user.role = change.role
            await store.end_sign_ins(tx, user.id, now)
            await store.end_tokens(tx, user.id, now)
        if change.expires_seconds is not None:
            user.expires_at = now + timedelta(seconds=change.expires_seconds)
            said["expires_at"] = rfc3339(user.expires_at)
        if said:
            await audit.record(tx, actor=actor, action="user.change", subject=user.name, body=said, now=now)
    manager.hub.wake()
    return _view(user, now)


@router.delete("/api/v1/users/{name}", summary="Shut a person out, for good and at once")
async def revoke_user(name: str, request: Request, actor: _Admin, dry_run: bool = False) -> dict[str, Any]:
    """Ends their sign-ins and every token that they made; the answer names them. The last admin stays."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        user = await _found(tx, name)
        if user.role == "admin" and tokens.user_alive(user, now):
            await _check_last(tx, user, now)
        ended = await _open(tx, user, now)
        if not dry_run and user.revoked_at is None:
            await store.end_sign_ins(tx, user.id, now)
            await store.end_tokens(tx, user.id, now)
            user.revoked_at = now
            body = {"tokens": [one["id"] for one in ended["tokens"]], "sign_ins": len(ended["signed_in"])}
            await audit.record(tx, actor=actor, action="user.revoke", subject=user.name, body=body, now=now)
    manager.hub.wake()
    return {**_view(user, now), **ended, "dry_run": dry_run}


async def _found(tx: AsyncSession, name: str) -> User:
    user = await store.by_name(tx, name)
    if user is None:
        raise NotFoundError(f"there is no user {name[:64]!r}", remedy="see them all: flotilla user list")
    return user


async def _check_free(tx: AsyncSession, name: str, now: datetime) -> None:
    before = await store.by_name(tx, name)
    if before is not None and before.revoked_at is not None:
        raise _gone(before)
    if before is not None:
        raise ConflictError(f"there is a user {name!r} already", remedy=f"flotilla user show {name}")
    if (token := await tokens.named(tx, name, now)) is not None:
        raise ConflictError(
            f"the token {token.id} bears the name {name!r}, and the audit could not tell them apart",
            remedy=f"choose another name, or end it first: flotilla token revoke {token.id}",
        )


async def _check_last(tx: AsyncSession, user: User, now: datetime) -> None:
    if not await store.other_admins(tx, now, without_user=user.id):
        raise ConflictError(
            f"{user.name} is the last admin", remedy="make another first: flotilla user create NAME --role admin"
        )


def _gone(user: User) -> ConflictError:
    when = rfc3339(user.revoked_at) if user.revoked_at else ""
    return ConflictError(
        f"{user.name} was revoked at {when}; a name is never given again, because the audit knows people by it",
        remedy="choose another name: flotilla user create NAME --role ROLE",
    )


async def _open(tx: AsyncSession, user: User, now: datetime) -> dict[str, Any]:
    """What would end with this person."""
    browsers, logins = await store.signed_in(tx, user.id, now)
    made = await store.tokens_of(tx, user.id, now)
    places = [
        {
            "with": "browser",
            "since": rfc3339(one.created_at),
            "seen_at": rfc3339(one.seen_at),
            "expires_at": rfc3339(one.expires_at),
        }
        for one in browsers
    ]
    places += [_login(one) for one in logins]
    return {"signed_in": places, "tokens": [{"id": one.id, "name": one.name, "role": one.role} for one in made]}


def _login(token: Token) -> dict[str, Any]:
    ends = rfc3339(token.expires_at) if token.expires_at else None
    return {"with": token.id, "since": rfc3339(token.created_at), "seen_at": None, "expires_at": ends}


def _view(user: User, now: datetime) -> dict[str, Any]:
    state = "valid" if tokens.user_alive(user, now) else "revoked" if user.revoked_at else "expired"
    return {
        "name": user.name,
        "role": user.role,
        "state": state,
        "created_by": user.created_by,
        "created_at": rfc3339(user.created_at),
        "password_at": rfc3339(user.password_at),
        "expires_at": rfc3339(user.expires_at) if user.expires_at else None,
        "revoked_at": rfc3339(user.revoked_at) if user.revoked_at else None,
    }
