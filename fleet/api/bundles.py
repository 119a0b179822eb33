"""Bundles: releases for devices that the network does not reach.

Manifests and chunks are downloaded by whoever writes the folder, as any device would.

I/O: chance.
"""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.api.context import Actor, allow, manager_of
from fleet.api.problems import ConflictError, NotFoundError
from fleet.releases import bundling
from fleet.rollouts import standing
from fleet.store import audit, devices, events
from fleet.store import releases as store
from fleet.store.tables import Device, Release
from shared.bundle import MAX_DEVICES, MAX_RELEASES
from shared.identifiers import DeviceId, ModelName, Version

router = APIRouter(tags=["releases"])

_Writer = Annotated[Actor, Depends(allow("rollouts:write"))]


class Wanted(BaseModel):
    """One release."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName
    version: Version


class NewBundle(BaseModel):
    """What goes in, for whom, and for how long it may be installed."""

    model_config = ConfigDict(extra="forbid")

    releases: Annotated[list[Wanted], Field(min_length=1, max_length=MAX_RELEASES)]
    devices: Annotated[list[DeviceId], Field(max_length=MAX_DEVICES)] = []
    site: Annotated[str | None, Field(description="all active devices of a site", max_length=128)] = None
    expires_seconds: Annotated[PositiveInt, Field(le=366 * 86400)] = 30 * 86400

    @model_validator(mode="after")
    def _for_somebody(self) -> "NewBundle":
        if bool(self.devices) == (self.site is not None):
            raise ValueError("name either devices or a site")
        return self


@router.post("/api/v1/bundles", status_code=201, summary="Assign releases, and sign a bundle that carries them")
async def export(new: NewBundle, request: Request, actor: _Writer, dry_run: bool = False) -> dict[str, Any]:
    """`files`: the signed documents as text, by their path in the folder. `?dry_run=true` assigns nothing."""
    manager = manager_of(request)
    now = manager.clock.now()
    expires = (now + timedelta(seconds=new.expires_seconds)).replace(microsecond=0)
    async with manager.database.write() as tx:
        releases = [await _release(tx, one) for one in new.releases]
        chosen = await _devices(tx, new)
        names = [f"{one.model}@{one.version}" for one in releases]
        plan = {"releases": names, "devices": [one.id for one in chosen], "expires": expires.isoformat()}
        if dry_run:
            return {**plan, "dry_run": True}
        made = await bundling.assemble(
            tx, manager.director, releases=releases, devices=chosen, now=now, expires=expires
        )
        subject = ", ".join(names)[:200]
        await audit.record(tx, actor=actor, action="bundle.export", subject=subject, body=plan, now=now)
        text = f"bundle of {subject} for {len(chosen)} devices exported by {actor.name}"
        await events.add(tx, kind="release", level="info", subject=subject, text=text, now=now)
    manager.hub.wake()
    return {**plan, "description": made.description.model_dump(mode="json"), "files": made.files}


async def _release(tx: AsyncSession, wanted: Wanted) -> Release:
    found = await store.find(tx, wanted.model, wanted.version)
    if found is None:
        what = f"{wanted.model}@{wanted.version}"
        raise NotFoundError(f"{what} was not published here", remedy=f"flotilla model show {wanted.model}")
    standing.check(found)
    return found


async def _devices(tx: AsyncSession, new: NewBundle) -> list[Device]:
    if new.site is not None:
        found = [one for one in await devices.active(tx) if one.site == new.site]
        if not found:
            raise NotFoundError(f"no active device at site {new.site!r}", remedy="flotilla device list")
        return found
    chosen = []
    for name in dict.fromkeys(new.devices):
        device = await devices.get(tx, name)
        if device is None:
            raise NotFoundError(f"there is no device {name!r}", remedy="see them all: flotilla device list")
        if device.lifecycle != "active":
            raise ConflictError(f"{name} is {device.lifecycle}", remedy="only active devices can be told anything")
        chosen.append(device)
    return chosen
