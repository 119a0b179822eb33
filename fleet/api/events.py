"""What happened: a list, and a stream that can be taken up where it broke off.

I/O: none.
"""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.store import events
from fleet.store.tables import Event
from shared.clock import rfc3339
from shared.errors import BadInputError

if TYPE_CHECKING:
    from fleet.daemon import Manager

router = APIRouter(tags=["events"])

_Reader = Annotated[Actor, Depends(allow("events:read"))]
#: A comment this often tells proxies and clients that the stream lives.
BEAT_SECONDS: Final = 15.0
_STREAMS: Final = {"text/event-stream": "event", "application/jsonl": "line"}


@router.get("/api/v1/events", summary="Events: a page, newest first, or a live stream", response_model=None)
async def list_events(
    request: Request,
    _actor: _Reader,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    rollout: Annotated[str | None, Query(max_length=16)] = None,
    after: Annotated[int | None, Query(ge=0, description="for streams: like Last-Event-ID")] = None,
) -> dict[str, Any] | StreamingResponse:
    """`Accept: text/event-stream` follows (resume with `Last-Event-ID`), `application/jsonl` the same as lines."""
    manager = manager_of(request)
    accepted = request.headers.get("accept", "")
    kind = next((kind for kind in _STREAMS if kind in accepted), None)
    if kind is not None:
        start = await _start(manager, request.headers.get("last-event-id"), after)
        lines = follow(manager, start, rollout=rollout, server_sent=kind == "text/event-stream")
        return StreamingResponse(
            lines, media_type=kind, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
    before = decode_cursor(cursor)
    if before is not None and not isinstance(before, int):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`")
    async with manager.database.read() as tx:
        rows = await events.newest(tx, limit=limit, before=before, rollout_id=rollout)
    return paged([view(row) for row in rows], limit=limit, cursor=rows[-1].sequence if rows else None)


async def _start(manager: "Manager", last_id: str | None, after: int | None) -> int:
    if last_id is not None and last_id.isdigit():
        return int(last_id)
    if after is not None:
        return after
    async with manager.database.read() as tx:
        return await events.last(tx)


async def follow(
    manager: "Manager", after: int, *, rollout: str | None = None, server_sent: bool = True
) -> AsyncIterator[str]:
    """Everything after `after`, as text, for as long as somebody reads."""
    seen = manager.hub.count
    yield ": connected\n\n" if server_sent else ""
    told = manager.clock.monotonic()
    while True:
        async with manager.database.read() as tx:
            rows = await events.after(tx, after, rollout_id=rollout)
        for row in rows:
            after = row.sequence
            said = json.dumps(view(row))
            yield f"id: {row.sequence}\nevent: {row.kind}\ndata: {said}\n\n" if server_sent else f"{said}\n"
        now = manager.clock.monotonic()
        if rows:
            told = now
            continue
        if now - told >= BEAT_SECONDS:  # also where much is committed that is no event
            yield ": beat\n\n" if server_sent else "\n"
            told = now
        seen = await manager.hub.wait(seen, BEAT_SECONDS - (now - told))


def view(row: Event) -> dict[str, Any]:
    """An event as the API shows it."""
    return {
        "sequence": row.sequence,
        "at": rfc3339(row.at),
        "kind": row.kind,
        "level": row.level,
        "subject": row.subject,
        "rollout": row.rollout_id,
        "text": row.text,
    }
