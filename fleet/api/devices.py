"""Devices: list, look at, label, let in, shut out, send back to the version before.

I/O: none.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import ConflictError, NotFoundError
from fleet.devices import assigning
from fleet.devices.enrolment import fingerprint
from fleet.devices.liveness import Patience
from fleet.schedules import labels
from fleet.schedules.channels import AliasName
from fleet.store import audit, devices, events
from fleet.store.tables import Device, Release, Stream, Window
from shared.clock import rfc3339
from shared.errors import BadInputError
from shared.sketches import Latency
from shared.windows import ZoneName

router = APIRouter(tags=["devices"])

_Reader = Annotated[Actor, Depends(allow("devices:read"))]
_Writer = Annotated[Actor, Depends(allow("devices:write"))]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]
LabelValue = Annotated[str, StringConstraints(max_length=128)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]


class DeviceChange(BaseModel):
    """What is not given stays as it is; `labels` replaces all of them."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    site: Annotated[str, Field(max_length=128)] | None = None
    labels: Labels | None = None
    timezone: ZoneName | Literal[""] | None = None  # the label `timezone`; empty: without
    channel: AliasName | Literal[""] | None = None  # the label `channel`; empty: without


@router.get("/api/v1/devices", summary="Devices, a page at a time")
async def list_devices(
    request: Request,
    _actor: _Reader,
    filter_text: Annotated[
        str, Query(alias="filter", max_length=500, description="such as `site:hall-3 online:true label.line:4 cam*`")
    ] = "",
    order: Annotated[
        str, Query(max_length=40, description="id, name, site, hardware, seen_at; `-seen_at` for down")
    ] = "id",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    manager = manager_of(request)
    after = decode_cursor(cursor)
    if after is not None and not isinstance(after, list):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`")
    async with manager.database.read() as tx:
        rows = await devices.page(tx, filter_text=filter_text, order=order, after=after, limit=limit)
    now = manager.clock.now()
    items = [view(row, manager.patience, now) for row in rows]
    return paged(items, limit=limit, cursor=devices.position(rows[-1], order) if rows else None)


@router.get("/api/v1/devices/{device_id}", summary="One device, by id or by its only name")
async def show_device(device_id: str, request: Request, _actor: _Reader) -> dict[str, Any]:
    manager = manager_of(request)
    async with manager.database.read() as tx:
        device = await _found(tx, device_id)
        shed = await devices.shed(tx, device.id)
    return view(device, manager.patience, manager.clock.now()) | {"shed_windows": shed}


@router.get("/api/v1/devices/{device_id}/metrics", summary="The newest telemetry windows of a device")
async def device_metrics(
    device_id: str, request: Request, _actor: _Reader, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 60
) -> dict[str, Any]:
    async with manager_of(request).database.read() as tx:
        device = await _found(tx, device_id)
        query = select(Window).where(Window.device_id == device.id).order_by(Window.received_at.desc()).limit(limit)
        rows = (await tx.scalars(query)).all()
    return paged([_metrics(row) for row in rows], limit=limit)


@router.patch("/api/v1/devices/{device_id}", summary="Name, site and labels")
async def change_device(device_id: str, change: DeviceChange, request: Request, actor: _Writer) -> dict[str, Any]:
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await _found(tx, device_id)
        said = change.model_dump(exclude_none=True)
        for field in ("name", "site"):
            if field in said:
                setattr(device, field, said[field])
        device.labels = labels.changed(
            said.get("labels", device.labels), timezone=change.timezone, channel=change.channel
        )
        await audit.record(tx, actor=actor, action="device.change", subject=device.id, body=said, now=now)
    manager.hub.wake()
    return view(device, manager.patience, now)


@router.post("/api/v1/devices/{device_id}/accept", summary="Let a waiting device in")
async def accept_device(device_id: str, request: Request, actor: _Writer) -> dict[str, Any]:
    """A device that is in already stays in."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await _found(tx, device_id)
        if device.lifecycle == "revoked":
            raise ConflictError(f"{device.id} was revoked", remedy="enrol it anew under another id")
        if device.lifecycle == "pending":
            device.lifecycle = "active"
            await _record(tx, actor, device.id, "device.accept", "was accepted", "ok", now)
    manager.hub.wake()
    return view(device, manager.patience, now)


@router.post("/api/v1/devices/{device_id}/reject", summary="Send a waiting device away")
async def reject_device(device_id: str, request: Request, actor: _Writer) -> dict[str, Any]:
    """It is forgotten and may enrol anew with another claim token."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await _found(tx, device_id)
        if device.lifecycle != "pending":
            raise ConflictError(
                f"{device.id} does not wait any more, it is {device.lifecycle}",
                remedy=f"to shut it out: flotilla device revoke {device.id}",
            )
        await tx.execute(delete(Stream).where(Stream.device_id == device.id))
        await tx.delete(device)
        await _record(tx, actor, device.id, "device.reject", "was sent away", "warn", now)
    manager.cut_off(device.id)
    manager.hub.wake()
    return {"id": device.id, "rejected": True}


@router.post("/api/v1/devices/{device_id}/revoke", summary="Shut a device out, for good and at once")
async def revoke_device(device_id: str, request: Request, actor: _Writer) -> dict[str, Any]:
    """Its messages are ignored, its connection is cut, no key is sealed for it. It keeps serving what it has."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await _found(tx, device_id)
        if device.lifecycle != "revoked":
            device.lifecycle, device.online, device.api_key_hash = "revoked", False, ""
            await _record(tx, actor, device.id, "device.revoke", "was revoked", "warn", now)
    manager.cut_off(device.id)
    await manager.announcer.retract(device.id)
    manager.hub.wake()
    return view(device, manager.patience, now)


@router.post("/api/v1/devices/{device_id}/rollback", summary="Back to the version in the other slot")
async def roll_back_device(
    device_id: str, request: Request, actor: _Writer, model: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """A new assignment of the good version that does not serve: seconds, no download. `model` if it has several."""
    manager = manager_of(request)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await _found(tx, device_id)
        if device.lifecycle != "active":
            raise ConflictError(f"{device.id} is {device.lifecycle}", remedy="only active devices can be told anything")
        name, version = assigning.other_good_slot(device.slots, device.serving, model)
        release = await tx.get(Release, (name, version))
        if release is None:
            raise ConflictError(f"{name} {version} was not published here", remedy="start a rollout of another version")
        plan = {"device": device.id, "model": name, "from": device.serving[name], "to": version}
        if dry_run:
            return {**plan, "dry_run": True}
        number = await assigning.assign(tx, manager.director, device, release, now=now)
        await audit.record(tx, actor=actor, action="device.rollback", subject=device.id, body=plan, now=now)
        text = f"{device.id}: told to go back to {name} {version} by {actor.name}"
        await events.add(tx, kind="device", level="info", subject=device.id, text=text, now=now)
    manager.hub.wake()
    await manager.announcer.announce(device.id)
    return {**plan, "assignment": number}


async def _found(tx: AsyncSession, id_or_name: str) -> Device:
    device = await devices.find(tx, id_or_name)
    if device is None:
        raise NotFoundError(f"there is no device {id_or_name[:80]!r}", remedy="see them all: flotilla device list")
    return device


async def _record(
    tx: AsyncSession, actor: Actor, device_id: str, action: str, what: str, level: events.Level, now: Any
) -> None:
    text = f"{device_id} {what} by {actor.name}"
    await events.add(tx, kind="device", level=level, subject=device_id, text=text, now=now)
    await audit.record(tx, actor=actor, action=action, subject=device_id, body={}, now=now)


def view(device: Device, patience: Patience, now: Any) -> dict[str, Any]:
    """A device as the API shows it."""
    return {
        "id": device.id,
        "name": device.name,
        "lifecycle": device.lifecycle,
        "link": patience.presence(online=device.online, seen_at=device.seen_at, now=now).value,
        "online": device.online,
        "seen_at": rfc3339(device.seen_at) if device.seen_at else None,
        "serving": device.serving,
        "slots": device.slots,
        "hardware": device.hardware,
        "site": device.site,
        "labels": device.labels,
        "agent_version": device.agent_version,
        "features": device.features,
        "assignment": device.assignment,
        "boot": device.boot,
        "enrolled_at": rfc3339(device.enrolled_at),
        "fingerprint": fingerprint(device.sign_key),
    }


def _metrics(row: Window) -> dict[str, Any]:
    latency = Latency({int(index): number for index, number in row.body.get("latency", {}).items()})
    return {
        "start": rfc3339(row.start),
        "end": rfc3339(row.end),
        "received_at": rfc3339(row.received_at),
        "model": row.model,
        "version": row.version,
        "requests": row.requests,
        "failed": row.failed,
        "p50_ms": latency.quantile_ms(0.5),
        "p95_ms": latency.quantile_ms(0.95),
        "p99_ms": latency.quantile_ms(0.99),
        "host": row.body.get("host", {}),
    }
