"""`/channels` and `/deliveries`: where alerts are told, how that goes, and a test. Secrets are never shown.

I/O: network, disk, tasks, chance.
"""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request

from fleet.access.secrets import new_id
from fleet.alerts import sender, wording
from fleet.alerts.channels import Channel, Custom, Email, Webhook
from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import NotFoundError
from fleet.store import audit
from fleet.store import deliveries as store
from fleet.store.tables import ChannelState, Delivery
from shared.clock import rfc3339
from shared.errors import BadInputError, FlotillaError

router = APIRouter(prefix="/api/v1", tags=["alerts"])

Read = Annotated[Actor, Depends(allow("alerts:read"))]
Write = Annotated[Actor, Depends(allow("alerts:write"))]


class ChannelNotFoundError(NotFoundError):
    """No channel has this name."""

    code = "E_CHANNEL_UNKNOWN"
    default_remedy = "flotilla alert channels shows them; they are set up below `channels` in fleet.yaml"


@router.get("/channels")
async def list_channels(request: Request, _actor: Read) -> dict[str, Any]:
    """Every channel that is set up or that `alerts.notification_channels` names."""
    manager = manager_of(request)
    settings = manager.settings
    async with manager.database.read() as tx:
        states, waiting = await store.channels(tx), await store.pending(tx)
    told = settings.alerts.notification_channels if settings.alerts.enable_notifications else ()
    names = dict.fromkeys([*settings.channels, *settings.alerts.notification_channels])
    items = []
    for name in names:
        count = sum(row.channel == name for row in waiting)
        items.append(
            _channel(name, settings.channels.get(name), states.get(name), notified=name in told, waiting=count)
        )
    return paged(items, limit=len(items) + 1)


@router.post("/channels/{name}/test")
async def test(name: str, request: Request, actor: Write) -> dict[str, Any]:
    """Send a test message now and tell what happened. It is not tried again."""
    manager = manager_of(request)
    settings = manager.settings.channels.get(name)
    if settings is None:
        raise ChannelNotFoundError(f"no channel {name[:64]!r} is set up")
    now, delivery = manager.clock.now(), new_id("dl")
    said = wording.message(delivery, wording.TEST, {}, group="test", at=now, manager=manager.manager_url)
    result: dict[str, Any] = {"channel": name, "id": delivery, "delivered": True}
    try:
        result["answer"] = await sender.send(settings, said, now)
    except FlotillaError as error:
        result |= {"delivered": False, "code": error.code, "answer": error.detail, "hint": error.remedy}
    async with manager.database.write() as tx:
        body = {"delivered": result["delivered"]}
        await audit.record(tx, actor=actor, action="channel.test", subject=name, body=body, now=now)
    return result


@router.get("/deliveries")
async def list_deliveries(
    request: Request,
    _actor: Read,
    channel: Annotated[str | None, Query(max_length=64)] = None,
    state: Literal["pending", "delivered", "refused", "given-up"] | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """The delivery log of the last 30 days, newest first."""
    after = decode_cursor(cursor)
    async with manager_of(request).database.read() as tx:
        try:
            rows = await store.page(tx, channel=channel, state=state, after=after, limit=limit)
        except (ValueError, TypeError, LookupError):
            raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
    last = [rows[-1].owed_at.isoformat(), rows[-1].id] if rows else None
    return paged([_delivery(row) for row in rows], limit=limit, cursor=last)


def _channel(
    name: str, settings: Channel | None, state: ChannelState | None, *, notified: bool, waiting: int
) -> dict[str, Any]:
    if settings is None:
        return {"name": name, "kind": None, "state": "not set up", "notified": False, "waiting": 0}
    return {
        "name": name,
        "kind": settings.kind,
        "state": "failing" if state is not None and state.failures else "ready",
        "target": _target(settings),
        "notified": notified,
        "retraining": settings.retraining,
        "min_severity": settings.min_severity,
        "events": list(settings.events),
        "waiting": waiting,
        "failures": state.failures if state else 0,
        "error": state.error if state else None,
        "next_at": rfc3339(state.next_at) if state and state.next_at else None,
        "delivered_at": rfc3339(state.delivered_at) if state and state.delivered_at else None,
    }


def _target(settings: Channel) -> str:
    """Who is told. Of a URL only the host: the rest may be a secret."""
    match settings:
        case Email():
            return f"{', '.join(settings.recipients)} by {settings.host}"
        case Webhook():
            return urlsplit(settings.url).netloc
        case Custom():
            return settings.handler
        case _:
            return settings.kind


def _delivery(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "channel": row.channel,
        "purpose": row.purpose,
        "group": row.group_key,
        "alerts": [row.body["alert"]] if row.purpose == "retraining" else [one["alert"] for one in row.body["items"]],
        "state": row.state,
        "attempts": row.attempts,
        "outcome": row.outcome,
        "owed_at": rfc3339(row.owed_at),
        "tried_at": None if row.tried_at is None else rfc3339(row.tried_at),
        "settled_at": None if row.settled_at is None else rfc3339(row.settled_at),
    }
