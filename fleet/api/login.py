"""Sign a browser in, with name and password or with a token, and out again.

I/O: disk, tasks.
"""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from fleet.access.identify import COOKIE, SignedIn
from fleet.access.passwords import BusyError
from fleet.access.sign_in import SignInError, SignInWaitError
from fleet.api.context import Problem, manager_of, public
from fleet.api.sign_in import address_of, knock
from fleet.dashboard.app import desk_of
from fleet.store import users
from shared.errors import FlotillaError

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
    return await _form(request, next, "", 200)


@router.post("/login", dependencies=[Depends(public())])
async def login(request: Request) -> Response:
    """The form of that page."""
    body = await request.body()
    if len(body) > _MAX_FORM_BYTES:
        raise Problem(413, "E_TOO_LARGE", "Request too large")
    fields = parse_qs(body.decode("utf-8", "replace"))
    target = fields.get("next", ["/"])[0]
    if _from_elsewhere(request):
        return await _form(request, target, "Sign in on this page; another site sent this.", 403)
    name, password = fields.get("name", [""])[0].strip(), fields.get("password", [""])[0]
    if name:
        return await _with_password(request, name, password, target)
    return await _sign_in(request, fields.get("token", [""])[0], target)


@router.post("/logout", dependencies=[Depends(public())])
async def logout(request: Request) -> Response:
    """End the session of this browser."""
    await manager_of(request).doorman.sign_out(request.headers.get("cookie", ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


async def _with_password(request: Request, name: str, password: str, target: str) -> Response:
    manager = manager_of(request)
    cookie = request.headers.get("cookie", "")
    try:
        knock(request)
        fresh = await manager.sign_ins.browser(
            manager.doorman, name, password, address=address_of(request), cookie=cookie
        )
    except Problem as problem:
        return await _form(request, target, "Too many attempts from this address. Wait a minute.", problem.status)
    except SignInError:
        return await _form(request, target, "Name and password do not belong together.", 401, name)
    except SignInWaitError as error:
        return await _form(request, target, _sentence(error), 429, name)
    except BusyError as error:
        return await _form(request, target, f"{_sentence(error)} Try again in a few seconds.", 503, name)
    manager.hub.wake()
    return _welcome(manager, fresh, target)


async def _sign_in(request: Request, token: str, target: str) -> Response:
    manager = manager_of(request)
    try:
        knock(request)
    except Problem as problem:
        return await _form(request, target, "Too many attempts from this address. Wait a minute.", problem.status)
    cookie = request.headers.get("cookie", "")
    fresh = await manager.doorman.sign_in(token.strip(), manager.clock.now(), cookie=cookie)
    if fresh is None:
        return await _form(request, target, "This token opens nothing: it is unknown, expired or revoked.", 401)
    return _welcome(manager, fresh, target)


def _welcome(manager: "Manager", fresh: SignedIn, target: str) -> Response:
    answer = RedirectResponse(_inside(target), 303)
    answer.headers["Cache-Control"] = "no-store"
    answer.set_cookie(COOKIE, fresh.cookie, httponly=True, samesite="lax", secure=_encrypted(manager), path="/")
    return answer


def _from_elsewhere(request: Request) -> bool:
    """True when the page of another site sent this form: nobody shall be signed in as somebody else unawares."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        return True
    origin = urlsplit(request.headers.get("origin", "")).netloc
    ours = {request.headers.get("host", ""), urlsplit(manager_of(request).manager_url).netloc}
    return bool(origin) and origin not in ours


def _sentence(error: FlotillaError) -> str:
    return error.detail[:1].upper() + error.detail[1:] + "."


def _encrypted(manager: "Manager") -> bool:
    return manager.manager_url.startswith("https:")


def _inside(target: str) -> str:
    """A path of our own; anything that leads elsewhere becomes the start page."""
    plain = (
        target.startswith("/") and not target.startswith(("//", "/\\")) and "\n" not in target and "\r" not in target
    )
    return target if plain else "/"


async def _form(request: Request, target: str, problem: str, status: int, name: str = "") -> Response:
    async with manager_of(request).database.read() as tx:
        people = await users.any_at_all(tx)
    page = desk_of(request)
    return page.html("login.html", status, next=_inside(target), problem=problem, people=people, who=name)
