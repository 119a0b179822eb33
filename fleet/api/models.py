"""Models and their versions: publish, list, show.

I/O: disk, tasks.
"""

import asyncio
import json
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import MAX_LIMIT, Actor, allow, decode_cursor, manager_of, paged
from fleet.api.problems import NotFoundError
from fleet.releases.shelf import Shelf, Submission
from fleet.store import audit, bad_pairs, events, served
from fleet.store import releases as store
from fleet.store.tables import Release
from fleet.telemetry import figures
from fleet.telemetry.finding import FLEET
from shared.clock import rfc3339
from shared.errors import BadInputError
from shared.identifiers import ModelName

router = APIRouter(tags=["models"])

_Reader = Annotated[Actor, Depends(allow("releases:read"))]
_Releaser = Annotated[Actor, Depends(allow("releases:write"))]
_Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class NewVersion(BaseModel):
    """A signed release. Its chunks are uploaded before."""

    model_config = ConfigDict(extra="forbid")

    manifest: Annotated[str, Field(description="the manifest, exactly as its digest was signed", max_length=4 << 20)]
    role: Annotated[str, Field(description="TUF role model-NAME that vouches for it", max_length=4 << 20)]
    targets: Annotated[
        str | None, Field(description="top-level targets, when the model is new", max_length=4 << 20)
    ] = None
    escrow_key: Annotated[
        str, Field(description="content key sealed to the manager's escrow key, base64", max_length=512)
    ]
    baseline: Annotated[str, Field(description="the drift baseline, as in the manifest", max_length=4 << 20)]


@router.get("/api/v1/models", summary="All models with their newest version")
async def list_models(
    request: Request, _actor: _Reader, limit: _Limit = 100, cursor: str | None = None
) -> dict[str, Any]:
    """By name."""
    after = decode_cursor(cursor)
    if after is not None and not isinstance(after, str):
        raise BadInputError("this cursor is not one of this list", remedy="start again without `cursor`")
    async with manager_of(request).database.read() as tx:
        rows = await store.every(tx)
    models = [_model(name, list(group)) for name, group in groupby(rows, key=lambda row: row.model)]
    page = [model for model in models if after is None or model["name"] > after][:limit]
    return paged(page, limit=limit, cursor=page[-1]["name"] if page else None)


@router.get("/api/v1/models/{name}/versions", summary="All versions of a model, newest first")
async def list_versions(
    name: ModelName, request: Request, _actor: _Reader, limit: _Limit = 100, cursor: str | None = None
) -> dict[str, Any]:
    """An unknown model is 404."""
    before = decode_cursor(cursor)
    if before is not None and not isinstance(before, int):
        raise BadInputError("this cursor is not one of this list", remedy="start again without `cursor`")
    async with manager_of(request).database.read() as tx:
        rows = await store.of_model(tx, name)
    if not rows:
        raise NotFoundError(f"no model {name!r} was published here", remedy="flotilla model list")
    page = [row for row in rows if before is None or row.counter < before][:limit]
    return paged([summary(row) for row in page], limit=limit, cursor=page[-1].counter if page else None)


@router.get("/api/v1/models/{name}/versions/{version}", summary="One version with its manifest and baseline")
async def get_version(name: ModelName, version: str, request: Request, _actor: _Reader) -> dict[str, Any]:
    """The manifest is what devices verify."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        row = await store.find(tx, name, version)
        bad = await bad_pairs.of_release(tx, name, version)
        serving = [one.id for one in await served.serving(tx, name, version)]
    if row is None:
        raise NotFoundError(f"{name}@{version} was not published here", remedy=f"flotilla model show {name}")
    now = [figures.document(one) for one in manager.standings.of(name, version, FLEET)]
    proofs = [
        {"hardware": it.hardware, "rollout": it.rollout_id, "reason": it.reason, "detail": it.detail,
         "failed": it.failed, "ended": it.ended, "at": rfc3339(it.at)}
        for it in bad.values()
    ]  # fmt: skip
    shown = {
        "bad_on": proofs,
        "serving": serving,
        "manifest": json.loads(row.manifest),
        "baseline": row.baseline,
        "performance": now,
    }
    return {**summary(row), **shown}


@router.post("/api/v1/models/{name}/versions", status_code=201, summary="Publish a signed version")
async def publish(
    name: ModelName, new: NewVersion, request: Request, response: Response, actor: _Releaser
) -> dict[str, Any]:
    """201 when it is new, 200 when exactly this one was published before."""
    manager = manager_of(request)
    now = manager.clock.now()
    shelf = Shelf(manager.depot, manager.repository, manager.online_keys)
    submission = Submission(
        manifest=new.manifest.encode(),
        role=new.role.encode(),
        targets=new.targets.encode() if new.targets is not None else None,
        escrow_key=new.escrow_key,
        baseline=new.baseline.encode(),
    )
    found = await asyncio.to_thread(shelf.examine, name, submission)
    async with manager.database.write() as tx:
        row, fresh = await shelf.place(tx, submission, found, by=actor.name, now=now)
        if fresh:
            subject = f"{row.model}@{row.version}"
            body = {"manifest": row.manifest_digest, "counter": row.counter}
            await audit.record(tx, actor=actor, action="model.publish", subject=subject, body=body, now=now)
            text = f"{subject} published by {actor.name}"
            await events.add(tx, kind="release", level="info", subject=subject, text=text, now=now)
    response.status_code = 201 if fresh else 200
    if fresh:
        manager.hub.wake()
    return summary(row)


def summary(row: Release) -> dict[str, Any]:
    """A version as lists show it."""
    manifest = json.loads(row.manifest)
    artifacts = manifest["artifacts"].values()
    return {
        "model": row.model,
        "version": row.version,
        "counter": row.counter,
        "minimum_counter": manifest["minimum_counter"],
        "state": row.state,
        "withdrawn": withdrawal(row),
        "manifest_digest": row.manifest_digest,
        "model_digest": manifest["artifacts"]["model"]["digest"],
        "size_bytes": manifest["artifacts"]["model"]["size_bytes"],
        "sealed_bytes": sum(chunk["size_bytes"] for artifact in artifacts for chunk in artifact["chunks"]),
        "metrics": manifest["metrics"],
        "latency_ms": manifest["latency_ms"],
        "notes": manifest["notes"],
        "published_by": row.published_by,
        "published_at": rfc3339(row.published_at),
    }


def withdrawal(row: Release) -> dict[str, Any] | None:
    """When, by whom and why; None for a release that may be given out."""
    if row.withdrawn_at is None:
        return None
    return {"at": rfc3339(row.withdrawn_at), "by": row.withdrawn_by, "reason": row.withdrawn_reason}


def _model(name: str, rows: list[Release]) -> dict[str, Any]:
    newest = summary(next((row for row in rows if row.withdrawn_at is None), rows[0]))
    return {
        "name": name,
        "versions": len(rows),
        "latest": newest["version"],
        "withdrawn": sum(row.withdrawn_at is not None for row in rows),
        "size_bytes": newest["size_bytes"],
        "metrics": newest["metrics"],
        "published_at": newest["published_at"],
    }
