"""The whole application: every router, the gate in front, errors as problems.

    request -> Gate (id, size, caller, CSRF, repeated POST) -> Compressed, CsvAnswers -> Listing -> router -> answer

I/O: network, disk, tasks, chance.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from fleet.access.answers import Answers
from fleet.api import (
    alerts,
    aliases,
    audit,
    backups,
    baselines,
    bundles,
    channels,
    chunks,
    devices,
    docs,
    drift,
    enroll,
    events,
    health,
    invites,
    leave,
    login,
    models,
    peers,
    reports,
    rollouts,
    schedules,
    sign_in,
    silences,
    tokens,
    trust,
    users,
    withdrawing,
    wrong_input,
)
from fleet.api.compressed import Compressed
from fleet.api.context import Allow, Public, request_id_of
from fleet.api.csv_answers import CsvAnswers
from fleet.api.listing import LIST_PARAMETERS, Listing, is_list
from fleet.api.middleware import Gate
from fleet.api.problems import Problem, of_error
from fleet.dashboard import app as dashboard
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from fleet.daemon import Manager

logger = logging.getLogger(__name__)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    devices.router,
    invites.router,
    enroll.router,
    leave.router,
    aliases.router,
    models.router,
    withdrawing.router,
    chunks.router,
    peers.router,
    bundles.router,
    trust.router,
    rollouts.router,
    reports.router,
    schedules.router,
    drift.router,
    baselines.router,
    alerts.router,
    silences.router,
    channels.router,
    events.router,
    audit.router,
    backups.router,
    sign_in.router,
    users.router,
    tokens.router,
    health.router,
    docs.router,
    login.router,
    dashboard.router,
)
_DESCRIPTION: Final = (
    "Signed, encrypted model updates for fleets of edge devices: devices, releases, rollouts, drift, alerts."
)


def create_app(manager: Manager) -> FastAPI:
    """The ASGI application of `manager`."""
    app = FastAPI(
        title="Flotilla",
        version=_version(),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    app.state.manager = manager
    for router in ROUTERS:
        _declare(router)
        app.include_router(router)
    dashboard.mount(app, manager)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(FlotillaError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(Listing)
    app.add_middleware(CsvAnswers)
    app.add_middleware(Compressed)
    app.add_middleware(
        Gate,
        doorman=manager.doorman,
        answers=Answers(manager.database),
        pepper=manager.pepper,
        clock=manager.clock,
        max_body_bytes=manager.settings.server.max_body_bytes,
    )
    return app


def needs(route: APIRoute) -> Allow | Public | None:
    """What a route declares; None for one that forgot it."""
    calls = [dependant.call for dependant in route.dependant.dependencies]
    return next((call for call in calls if isinstance(call, Allow | Public)), None)


def _declare(router: APIRouter) -> None:
    """Write each route's permission, and what every list takes, into the OpenAPI document."""
    for route in router.routes:
        if isinstance(route, APIRoute) and isinstance(found := needs(route), Allow):
            extra = {**(route.openapi_extra or {}), "x-permission": found.permission}
            known = {one.alias for one in route.dependant.query_params}
            if "GET" in (route.methods or ()) and is_list(route.path):
                extra["parameters"] = [one for one in LIST_PARAMETERS if one["name"] not in known]
            route.openapi_extra = extra


def _version() -> str:
    try:
        return version("flotilla-edge")
    except PackageNotFoundError:
        return "0"


def _answer(request: Request, problem: Problem) -> Response:
    return JSONResponse(
        problem.document(request_id_of(request)),
        problem.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )


async def _problem(request: Request, error: Exception) -> Response:
    return _answer(request, cast("Problem", error))


async def _refused(request: Request, error: Exception) -> Response:
    problem = of_error(cast("FlotillaError", error))
    if problem.status >= 500:
        logger.warning("request failed path=%s code=%s detail=%s", request.url.path, problem.code, problem.detail)
    return _answer(request, problem)


async def _http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths, wrong methods, bodies that are not JSON."""
    found = cast("HTTPException", error)
    if isinstance(found.__cause__, Problem):
        return _answer(request, found.__cause__)
    codes = {404: ("E_NOT_FOUND", "Not found"), 405: ("E_METHOD", "Not possible with this method")}
    code, title = codes.get(found.status_code, ("E_REQUEST", "Not understood"))
    hint = "the API is described at /api/docs"
    headers = dict(found.headers or {})
    return _answer(request, Problem(found.status_code, code, title, str(found.detail), hint, headers=headers))


async def _invalid(request: Request, error: Exception) -> Response:
    """A body or parameter of the wrong form; the values themselves are not echoed."""
    found = cast("RequestValidationError", error)
    errors = wrong_input.explained(found.errors())
    first = wrong_input.named(errors[0]) if errors else ""
    hint = "see the form of this request at /api/docs"
    return _answer(request, Problem(422, "E_BAD_INPUT", "Not acceptable as it stands", first, hint, errors=errors))


async def _broken(request: Request, error: Exception) -> Response:
    logger.error("request broke path=%s", request.url.path, exc_info=error)
    hint = "the manager's log has the details under this request_id; if it repeats, please report it"
    return _answer(request, Problem(500, "E_INTERNAL", "The manager has a bug", "something unforeseen happened", hint))
