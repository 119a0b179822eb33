"""Sign in with name and password for a token, out again, and change one's own password.

I/O: tasks.
"""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.access.passwords import MOST_CHARACTERS
from fleet.api.context import Actor, Problem, allow, manager_of, public
from fleet.api.problems import ConflictError
from fleet.store import audit
from shared.clock import rfc3339
from shared.errors import BadInputError

router = APIRouter(tags=["sign in"])

_Anybody = Annotated[Actor, Depends(allow("devices:read"))]
_Password = Annotated[str, Field(min_length=1, max_length=4 * MOST_CHARACTERS)]


class SignIn(BaseModel):
    """`expires_seconds` null: as long as `users.session_hours` says."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    password: _Password
    expires_seconds: Annotated[int, Field(ge=1)] | None = None


class OwnPassword(BaseModel):
    """The new one, and proof that it is you."""

    model_config = ConfigDict(extra="forbid")

    current_password: _Password
    password: _Password


@router.post("/api/v1/sign-in", dependencies=[Depends(public())], summary="A token for name and password")
async def sign_in(asked: SignIn, request: Request, response: Response) -> dict[str, Any]:
    """It is shown once and ends by itself. Wrong passwords in a row make the name, and the address, wait."""
    manager = manager_of(request)
    settings = manager.settings.users
    longest = timedelta(days=settings.longest_sign_in_days)
    lasts = (
        timedelta(seconds=asked.expires_seconds) if asked.expires_seconds else timedelta(hours=settings.session_hours)
    )
    if lasts > longest:
        raise BadInputError(
            f"a sign-in may last {settings.longest_sign_in_days:g} days here",
            remedy="ask for less, or make a token for a program: flotilla token create NAME --expires 90d",
        )
    knock(request)
    made = await manager.sign_ins.command_line(asked.name, asked.password, address=address_of(request), lasts=lasts)
    manager.hub.wake()
    response.headers["Cache-Control"] = "no-store"
    return {
        "name": made.user.name,
        "role": made.user.role,
        "token": made.secret,
        "expires_at": rfc3339(made.token.expires_at) if made.token.expires_at else None,
    }


@router.post("/api/v1/sign-out", summary="End the token that signing in made")
async def sign_out(request: Request, actor: _Anybody) -> dict[str, Any]:
    """`ended` false: this token was made for a program; `DELETE /tokens/ID` ends it."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        ended = await manager.doorman.end_login(tx, request.headers.get("authorization", ""), now)
        if ended:
            await audit.record(tx, actor=actor, action="user.sign-out", subject=actor.who, body={}, now=now)
    return {"ended": ended}


@router.get("/api/v1/me", summary="Who I am and what I may do")
async def me(actor: _Anybody) -> dict[str, Any]:
    """`person` is the user behind a token; null for one that is nobody's."""
    return {
        "name": actor.name,
        "role": actor.role,
        "person": actor.person or None,
        "permissions": list(actor.permissions()),
    }


@router.patch("/api/v1/me", summary="Another password for me")
async def change_password(asked: OwnPassword, request: Request, actor: _Anybody) -> dict[str, Any]:
    """Ends every sign-in of mine, this one too. Tokens that I made for programs stay."""
    if actor.name != actor.person:
        raise ConflictError(
            "a token has no password; this needs somebody who signed in with name and password",
            remedy="flotilla login URL --user NAME",
        )
    manager = manager_of(request)
    knock(request)
    ended = await manager.sign_ins.change_own(
        actor.person,
        asked.current_password,
        asked.password,
        address=address_of(request),
        request_id=actor.request_id,
    )
    manager.hub.wake()
    return {"name": actor.person, "signed_out": ended}


def address_of(request: Request) -> str:
    """Where a request comes from; uvicorn believes a proxy on this machine."""
    return request.client.host if request.client else ""


def knock(request: Request) -> None:
    """Count one request that may cost much, before it costs anything.

    Raises:
        Problem: too many from one address.
    """
    manager = manager_of(request)
    if not manager.knocks.take(address_of(request), manager.clock.monotonic()):
        raise Problem(
            429,
            "E_TOO_MANY",
            "Too many attempts",
            "too many attempts from this address",
            "wait a minute",
            headers={"Retry-After": "60"},
        )
