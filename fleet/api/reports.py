"""`/drift/report`: a report on one model as HTML, PDF or JSON. The work is done here, on threads.

I/O: disk, tasks.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from fleet.api import drift
from fleet.api.context import Actor, allow, manager_of
from fleet.reports import html
from fleet.reports.errors import SpanError
from fleet.reports.gathering import Wish
from fleet.reports.reporter import TYPES, Format, Reporter, name, written
from fleet.reports.span import since as instant

router = APIRouter(tags=["drift"])

Read = Annotated[Actor, Depends(allow("drift:read"))]


@router.get("/api/v1/drift/report", summary="A report on one model: HTML, PDF or JSON")
async def report(
    request: Request,
    actor: Read,
    model: Annotated[str | None, Query(max_length=64)] = None,
    version: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[str, Query(max_length=40, description="`7d`, `24h`, or an instant")] = "7d",
    site: Annotated[str | None, Query(max_length=128)] = None,
    device: Annotated[str | None, Query(max_length=64)] = None,
    format: Annotated[Format, Query()] = "html",  # noqa: A002  # the name of the parameter
) -> Response:
    """Distributions against the reference, timelines, strips by site and device, performance, alerts, coverage."""
    if model is None:  # somebody named a model `report`
        return JSONResponse(await drift.show("report", request, actor))
    if site is not None and device is not None:
        raise SpanError("a report is on one site or on one device, not both", remedy="leave one of them out")
    manager = manager_of(request)
    now = manager.clock.now()
    scope = f"device:{device}" if device is not None else f"site:{site}" if site is not None else "fleet"
    found = await reporter_of(request).report(Wish(model, version, scope, instant(since, now), now))
    headers = {
        "Content-Disposition": f'inline; filename="{name(found, format)}"',
        "Content-Security-Policy": html.POLICY + "; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(await asyncio.to_thread(written, found, format), media_type=TYPES[format], headers=headers)


def reporter_of(request: Request) -> Reporter:
    """The one of this application."""
    made: Reporter | None = getattr(request.app.state, "reporter", None)
    if made is None:
        made = request.app.state.reporter = Reporter(manager_of(request))
    return made
