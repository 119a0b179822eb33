"""Sealed chunks, manifests and signed metadata: written by releasers, read by anybody.

What devices download needs no credentials: it is encrypted or signed, and named by what it is.

    PUT  /api/v1/chunks/{id}         GET /chunks/{id}            immutable, ranges, ETag
    POST /api/v1/chunks/missing      GET /manifests/{digest}     immutable
                                     GET /metadata/{file}        immutable when the name has a version

I/O: disk, tasks.
"""

import asyncio
import re
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import Actor, Problem, allow, manager_of, public
from fleet.api.problems import NotFoundError
from fleet.releases import depot
from fleet.releases.depot import MAX_CHUNK_BYTES
from fleet.store import releases as store
from shared.identifiers import Digest, checked
from shared.manifest import MAX_CHUNKS

router = APIRouter(tags=["releases"])

FOREVER: Final = "public, max-age=31536000, immutable"
BYTES: Final = "application/octet-stream"
ELSEWHERE: Final = "Flotilla-Elsewhere"  # who sends it follows a redirect to the same name
_RANGE: Final = re.compile(r"bytes=([0-9]{1,9})-([0-9]{0,9})")
_Releaser = Annotated[Actor, Depends(allow("releases:write"))]


class Names(BaseModel):
    """Chunk ids to look up."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Digest], Field(max_length=3 * MAX_CHUNKS)]


class Missing(BaseModel):
    """Those that must be uploaded."""

    missing: list[str]


class Stored(BaseModel):
    """`new` is false when the chunk was here before."""

    id: str
    new: bool


@router.post("/api/v1/chunks/missing", summary="Which of these chunks are not here yet")
async def missing(names: Names, request: Request, _actor: _Releaser) -> Missing:
    """The ids of chunks to upload, in the order asked."""
    return Missing(missing=await asyncio.to_thread(manager_of(request).depot.missing, names.ids))


@router.put("/api/v1/chunks/{name}", status_code=201, summary="Upload one sealed chunk")
async def put(name: str, request: Request, response: Response, _actor: _Releaser) -> Stored:
    """The body is the chunk, and its SHA-256 is its name. Repeating it is harmless."""
    checked("digest", name)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_CHUNK_BYTES:
            hint = "chunks are cut by `flotilla model publish`"
            raise Problem(413, "E_TOO_LARGE", "Too large", f"a chunk has at most {MAX_CHUNK_BYTES} bytes", hint)
    new = await asyncio.to_thread(manager_of(request).depot.put, name, bytes(body))
    response.status_code = 201 if new else 200
    return Stored(id=name, new=new)


@router.get(
    "/chunks/{name}", dependencies=[Depends(public())], response_class=FileResponse, summary="Download one sealed chunk"
)
async def get_chunk(name: str, request: Request) -> Response:
    """Ciphertext, to be checked against its name by whoever fetches it."""
    manager = manager_of(request)
    path = manager.depot.where(name)
    public_url = manager.settings.releases.public_url
    if public_url is not None and ELSEWHERE in request.headers:
        headers = {"Location": f"{public_url.rstrip('/')}/{depot.place(name)}", "Vary": ELSEWHERE}
        return Response(status_code=307, headers={**headers, "Cache-Control": "no-store"})
    headers = {"Cache-Control": FOREVER, "ETag": f'"{name}"', "X-Content-Type-Options": "nosniff", "Vary": ELSEWHERE}
    if path is not None and path.is_file():
        if _known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type=BYTES, headers=headers)
    data = await asyncio.to_thread(manager.depot.get, name) if path is None else None
    if data is None:
        raise NotFoundError(f"no chunk {name[:12]} here")
    return (
        Response(status_code=304, headers=headers)
        if _known(request, headers["ETag"])
        else _part(request, data, headers)
    )


@router.get("/manifests/{digest}", dependencies=[Depends(public())], summary="The manifest of a release, as signed")
async def get_manifest(digest: str, request: Request) -> Response:
    """The bytes whose SHA-256 is `digest`."""
    checked("digest", digest)
    async with manager_of(request).database.read() as tx:
        release = await store.by_digest(tx, digest)
    if release is None:
        raise NotFoundError(f"no manifest {digest[:12]} here")
    headers = {"Cache-Control": FOREVER, "ETag": f'"{digest}"'}
    if _known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(release.manifest, media_type="application/json", headers=headers)


@router.get("/metadata/{file}", dependencies=[Depends(public())], summary="TUF metadata, by consistent-snapshot name")
async def get_metadata(file: str, request: Request) -> Response:
    """`1.root.json`, `timestamp.json`, `4.snapshot.json`, `2.targets.json`, `7.model-NAME.json`."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        data = await manager.repository.document(tx, file)
    caching = FOREVER if file[:1].isdigit() else "no-cache"
    return Response(data, media_type="application/json", headers={"Cache-Control": caching})


def _part(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """All of `data`, or the one range that is asked for."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return Response(data, media_type=BYTES, headers=headers)
    start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if start > end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], status_code=206, media_type=BYTES, headers=headers)


def _known(request: Request, tag: str) -> bool:
    asked = request.headers.get("if-none-match", "")
    return tag in asked or asked.strip() == "*"
