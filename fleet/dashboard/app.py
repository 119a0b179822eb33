"""The pages: Fleet, Rollouts, Rollout, sign in; and one stream for each. Actions go to the API, not here.

I/O: disk, tasks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles

from fleet.access.roles import Actor
from fleet.api.context import actor_of, allow, manager_of, public
from fleet.dashboard import drift_views, facts, live, page, reading, rollout_views, schedule_views, views
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.reading import rollout_view
from fleet.store import rollouts as store
from fleet.store import schedules
from fleet.telemetry.figures import estimated
from fleet.telemetry.performance import Limits

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.daemon import Manager

router = APIRouter(include_in_schema=False)

FLEET: Final = {
    "nav": "_nav.html",
    "fleet-sub": "_fleet_sub.html",
    "kpis": "_kpis.html",
    "alerts": "_alerts.html",
    "wall-box": "_wall.html",
    "versions": "_versions.html",
    "feed": "_feed.html",
    "devices": "_rows.html",
}
ROLLOUTS: Final = {"nav": "_nav.html", "rollouts": "_rollouts.html", "schedules": "_schedules.html"}
ROLLOUT: Final = {
    "nav": "_nav.html",
    "ro-head": "_ro_head.html",
    "ro-why": "_ro_why.html",
    "stages": "_stages.html",
    "lat-legend": "_lat_legend.html",
    "dist": "_distribution.html",
    "cards": "_cards.html",
    "gates": "_gates.html",
    "feed": "_feed.html",
    "cost-promote": "_cost_promote.html",
    "cost-abort": "_cost_abort.html",
    "cost-rollback": "_cost_rollback.html",
}
DRIFT: Final = {
    "nav": "_nav.html",
    "drift-head": "_drift_head.html",
    "performance": "_performance.html",
    "dist": "_distribution.html",
    "drift-features": "_drift_features.html",
    "drift-devices": "_drift_devices.html",
}
_MOVED: Final = 12  # devices of the Drift page


class Desk:
    """What the pages of one manager share: templates, the windows read so far, the boards."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.templates = page.environment()
        self.history = reading.History()
        self.boards = live.Boards(manager.clock)
        settings = manager.settings
        self.limits = facts.Limits(
            psi=settings.thresholds.statistical_drift.psi_threshold,
            latency_ms=settings.monitoring.latency_threshold_ms,
            error_ratio=settings.monitoring.error_rate_threshold,
            patience=manager.patience,
        )

    def html(self, name: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page."""
        return HTMLResponse(self.templates.get_template(name).render(context), status, page.HEADERS)

    async def fleet(self, actor: Actor) -> Mapping[str, Any]:
        """The context of the Fleet page."""
        now = self.manager.clock.now()
        async with self.manager.database.read() as tx:
            await self.history.refresh(tx, now)
            found = await reading.fleet(tx, self.history.windows, now, self.limits)
            nav = page.Nav(*await reading.counts(tx))
        view = views.fleet(found)
        palette = page.Palette.of(found.devices, found.rollouts)
        return {
            "page": "fleet",
            "view": view,
            "lines": view.feed,
            "here": False,
            "nav": nav,
            "palette": palette,
            "may": page.May.of(actor),
        }

    async def rollouts(self, actor: Actor) -> Mapping[str, Any]:
        """The context of the Rollouts list."""
        now = self.manager.clock.now()
        async with self.manager.database.read() as tx:
            many = await reading.rollouts(tx)
            rows = rollout_views.listed(many, await store.tallies(tx, [one.id for one in many]), now)
            later = schedule_views.listed(
                await schedules.newest(tx, states=schedule_views.SHOWN, limit=50, before=None), now
            )
            frame = await self._frame(tx)
            return {"page": "rollouts", "rows": rows, "later": later, "may": page.May.of(actor), **frame}

    async def rollout(self, actor: Actor, rollout: str, feature: str | None) -> Mapping[str, Any]:
        """The context of one Rollout page.

        Raises:
            RolloutNotFoundError: no such rollout.
        """
        now = self.manager.clock.now()
        async with self.manager.database.read() as tx:
            view = await rollout_view(tx, rollout, now)
            await self.history.refresh(tx, now)
            found = rollout_views.Facts(
                view=view,
                now=now,
                windows=self.history.windows,
                drift=await reading.drift(tx, view.model, view.version),
                feature=feature,
                limits=self.limits,
            )
            made = rollout_views.page(found)
            frame = await self._frame(tx)
        may = page.May.of(actor)
        return {"page": "rollouts", "ro": made, "lines": made.timeline, "here": True, "may": may, **frame}

    async def drift(self, actor: Actor, model: str | None, version: str | None, feature: str | None) -> Any:
        """The context of the Drift page: of one release, the one that is worst off unless one is named."""
        now, manager = self.manager.clock.now(), self.manager
        async with manager.database.read() as tx:
            states = await reading.drift_states(tx)
            release = drift_views.choose(states, model, version) or (model or "", version or "")
            devices, drifted = await reading.moved(tx, *release, _MOVED)
            fleet = await reading.fleet_drift(tx, *release)
            estimates = [one.body["accuracy_estimate"] for one in fleet if "accuracy_estimate" in one.body]
            found = drift_views.Facts(
                states=states,
                model=release[0],
                version=release[1],
                fleet=fleet,
                devices=devices,
                drifted=drifted,
                standing=next(iter(manager.standings.of(*release, "fleet")), None),
                estimates=[estimated(one, Limits.of(manager.settings)) for one in estimates],
                feature=feature,
                limits=self.limits,
                now=now,
                withdrawn=await reading.withdrawn(tx, *release),
            )
            frame = await self._frame(tx)
        return {"page": "drift", "ro": drift_views.page(found), "may": page.May.of(actor), **frame}

    async def _frame(self, tx: AsyncSession) -> Mapping[str, Any]:
        palette = page.Palette.of(await reading.devices(tx, 200), await reading.rollouts(tx, 20))
        return {"nav": page.Nav(*await reading.counts(tx)), "palette": palette}

    def shown(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """What a whole page needs beside its context."""
        return {
            "actor": actor,
            "csrf": request.scope.get("flotilla.csrf", ""),
            "manager_url": self.manager.manager_url,
        }

    def fragments(self, names: Mapping[str, str], context: Mapping[str, Any]) -> Mapping[str, str]:
        """Every fragment of a page."""
        return page.fragments(self.templates, names, context)


def mount(app: FastAPI, manager: Manager) -> None:
    """Serve the pages and their files from `app`."""
    app.state.desk = Desk(manager)
    app.mount("/static", StaticFiles(directory=page.HERE / "static"), name="static")


def desk_of(request: Request) -> Desk:
    """The desk of this application; made at the first page if `mount` was given no chance."""
    desk: Desk | None = getattr(request.app.state, "desk", None)
    if desk is None:
        desk = request.app.state.desk = Desk(manager_of(request))
    return desk


def _gate(request: Request) -> Actor | Response:
    """The visitor, or the page that a stranger gets instead."""
    actor = actor_of(request)
    if actor is None:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303, page.HEADERS)
    if not (actor.may("devices:read") and actor.may("rollouts:read")):
        why = f"The role {actor.role} may not look at the fleet. Ask an admin for a token with the role viewer."
        return _message(request, 403, "Not allowed", why, "flotilla token create --role viewer")
    return actor


def _message(request: Request, status: int, title: str, text: str, command: str) -> HTMLResponse:
    return desk_of(request).html("message.html", status, title=title, text=text, command_line=command)


@router.get("/", dependencies=[Depends(public())])
async def home() -> RedirectResponse:
    return RedirectResponse("/fleet", 307)


@router.get("/fleet", dependencies=[Depends(public())])
async def fleet_page(request: Request) -> Response:
    match _gate(request):
        case Actor() as actor:
            desk = desk_of(request)
            return desk.html("fleet.html", **await desk.fleet(actor), **desk.shown(request, actor))
        case answer:
            return answer


@router.get("/rollouts", dependencies=[Depends(public())])
async def rollouts_page(request: Request) -> Response:
    match _gate(request):
        case Actor() as actor:
            desk = desk_of(request)
            return desk.html("rollouts.html", **await desk.rollouts(actor), **desk.shown(request, actor))
        case answer:
            return answer


@router.get("/rollouts/{rollout}", dependencies=[Depends(public())])
async def rollout_page(
    request: Request, rollout: str, feature: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    match _gate(request):
        case Actor() as actor:
            desk = desk_of(request)
            try:
                context = await desk.rollout(actor, rollout, feature)
            except RolloutNotFoundError:
                text = f"There is no rollout {rollout[:32]}. It may belong to another manager."
                return _message(request, 404, "No such rollout", text, "flotilla rollout list")
            return desk.html("rollout.html", feature=feature or "", **context, **desk.shown(request, actor))
        case answer:
            return answer


_Name = Annotated[str | None, Query(max_length=64)]


@router.get("/drift", dependencies=[Depends(public())])
async def drift_page(request: Request, model: _Name = None, version: _Name = None, feature: _Name = None) -> Response:
    match _gate(request):
        case Actor() as actor:
            desk = desk_of(request)
            context = await desk.drift(actor, model, version, feature)
            return desk.html("drift.html", feature=feature or "", **context, **desk.shown(request, actor))
        case answer:
            return answer


Reader = Annotated[Actor, Depends(allow("rollouts:read"))]


def _audience(actor: Actor) -> str:
    """Visitors who see the same buttons share one rendering."""
    may = page.May.of(actor)
    return f"{actor.role if not may.rollouts else 'writer'}/{may.alerts}"


async def _messages(request: Request, board: live.Board) -> AsyncIterator[ServerSentEvent]:
    """The stream of one viewer; it ends when the session does."""
    manager, headers, asked = manager_of(request), request.headers, actor_of(request)

    async def welcome() -> bool:
        found = await manager.doorman.identify(
            authorization=headers.get("authorization", ""), cookie=headers.get("cookie", ""), now=manager.clock.now()
        )
        return found is not None and asked is not None and found.role == asked.role

    async for message in live.stream(board, manager.hub, manager.clock, welcome):
        yield message


@router.get("/ui/stream/fleet", response_class=EventSourceResponse)
async def fleet_stream(request: Request, actor: Reader) -> AsyncIterator[ServerSentEvent]:
    desk = desk_of(request)

    async def render() -> live.Frame:
        return live.Frame(desk.fragments(FLEET, await desk.fleet(actor)))

    async for message in _messages(request, desk.boards.board(f"fleet/{_audience(actor)}", render)):
        yield message


@router.get("/ui/stream/rollouts", response_class=EventSourceResponse)
async def rollouts_stream(request: Request, actor: Reader) -> AsyncIterator[ServerSentEvent]:
    desk = desk_of(request)

    async def render() -> live.Frame:
        return live.Frame(desk.fragments(ROLLOUTS, await desk.rollouts(actor)))

    async for message in _messages(request, desk.boards.board(f"rollouts/{_audience(actor)}", render)):
        yield message


@router.get("/ui/stream/rollouts/{rollout}", response_class=EventSourceResponse)
async def rollout_stream(
    request: Request, actor: Reader, rollout: str, feature: Annotated[str | None, Query(max_length=64)] = None
) -> AsyncIterator[ServerSentEvent]:
    desk = desk_of(request)

    async def render() -> live.Frame:
        context = await desk.rollout(actor, rollout, feature or None)
        return live.Frame(desk.fragments(ROLLOUT, context), context["ro"].chart)

    board = desk.boards.board(f"rollout/{rollout}/{feature or ''}/{_audience(actor)}", render)
    async for message in _messages(request, board):
        yield message


@router.get("/ui/stream/drift", response_class=EventSourceResponse)
async def drift_stream(
    request: Request, actor: Reader, model: _Name = None, version: _Name = None, feature: _Name = None
) -> AsyncIterator[ServerSentEvent]:
    desk = desk_of(request)

    async def render() -> live.Frame:
        return live.Frame(
            desk.fragments(DRIFT, await desk.drift(actor, model or None, version or None, feature or None))
        )

    place = "/".join(quote(word or "", safe="") for word in (model, version, feature))
    async for message in _messages(request, desk.boards.board(f"drift/{place}/{_audience(actor)}", render)):
        yield message
