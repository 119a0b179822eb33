"""Sealed chunks, manifests and signed metadata: written by releasers, read by anybody.

What devices download needs no credentials: it is encrypted or signed, and named by what it is.

    PUT  /api/v1/chunks/{id}         GET /chunks/{id}            immutable, ranges, ETag
    POST /api/v1/chunks/missing      GET /manifests/{digest}     immutable
                                     GET /metadata/{file}        immutable when the name has a version

I/O: disk, tasks.
"""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import Actor, Problem, allow, manager_of, public
from fleet.api.problems import NotFoundError
from fleet.releases.depot import MAX_CHUNK_BYTES
from fleet.store import releases as store
from shared.identifiers import Digest, checked
from shared.manifest import MAX_CHUNKS

router = APIRouter(tags=["releases"])

FOREVER: Final = "public, max-age=31536000, immutable"
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
    path = manager_of(request).depot.path(name)
    headers = {"Cache-Control": FOREVER, "ETag": f'"{name}"', "X-Content-Type-Options": "nosniff"}
    if not path.is_file():
        raise NotFoundError(f"no chunk {name[:12]} here")
    if _known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


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


def _known(request: Request, tag: str) -> bool:
    asked = request.headers.get("if-none-match", "")
    return tag in asked or asked.strip() == "*"
