"""Sign a browser in with a token, and out again.

I/O: disk, tasks.
"""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from fleet.access.identify import COOKIE
from fleet.api.context import Problem, manager_of, public
from fleet.dashboard.app import desk_of

if TYPE_CHECKING:
    from fleet.daemon import Manager

router = APIRouter(tags=["sign in"], include_in_schema=False)

_MAX_FORM_BYTES = 4096


@router.get("/login", dependencies=[Depends(public())])
async def login_page(
    request: Request,
    token: Annotated[str, Query(max_length=200)] = "",
    next: Annotated[str, Query(max_length=500)] = "/",  # noqa: A002  # the word that the dashboard sends
) -> Response:
    """With a token (the link that the manager prints): sign in. Without: ask for one."""
    if token:
        return await _sign_in(request, token, next)
    return _form(request, next, "", 200)


@router.post("/login", dependencies=[Depends(public())])
async def login(request: Request) -> Response:
    """The form of that page."""
    body = await request.body()
    if len(body) > _MAX_FORM_BYTES:
        raise Problem(413, "E_TOO_LARGE", "Request too large")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return await _sign_in(request, fields.get("token", [""])[0], fields.get("next", ["/"])[0])


@router.post("/logout", dependencies=[Depends(public())])
async def logout(request: Request) -> Response:
    """End the session of this browser."""
    await manager_of(request).doorman.sign_out(request.headers.get("cookie", ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


async def _sign_in(request: Request, token: str, target: str) -> Response:
    manager = manager_of(request)
    if not manager.sign_ins.take(request.client.host if request.client else "", manager.clock.monotonic()):
        return _form(request, target, "Too many attempts from this address. Wait a minute.", 429)
    fresh = await manager.doorman.sign_in(token.strip(), manager.clock.now())
    if fresh is None:
        return _form(request, target, "This token opens nothing: it is unknown, expired or revoked.", 401)
    answer = RedirectResponse(_inside(target), 303)
    answer.headers["Cache-Control"] = "no-store"
    answer.set_cookie(COOKIE, fresh.cookie, httponly=True, samesite="lax", secure=_encrypted(manager), path="/")
    return answer


def _encrypted(manager: "Manager") -> bool:
    return manager.manager_url.startswith("https:")


def _inside(target: str) -> str:
    """A path of our own; anything that leads elsewhere becomes the start page."""
    plain = (
        target.startswith("/") and not target.startswith(("//", "/\\")) and "\n" not in target and "\r" not in target
    )
    return target if plain else "/"


def _form(request: Request, target: str, problem: str, status: int) -> Response:
    return desk_of(request).html("login.html", status, next=_inside(target), problem=problem)
