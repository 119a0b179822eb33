"""Backups: written by the manager while it runs, kept by whoever asks.

I/O: disk.
"""

import base64
import binascii
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import MAX_LIMIT, Actor, Problem, allow, decode_cursor, manager_of, paged
from fleet.backups.sealing import KEY_BYTES, Lock
from fleet.backups.writing import Maker, Written, expected_bytes
from fleet.store import backups as store
from shared.clock import rfc3339
from shared.errors import BadInputError

if TYPE_CHECKING:
    from fleet.daemon import Manager

router = APIRouter(tags=["backups"])

_NO_KEY = "an Idempotency-Key makes no sense here: nothing changes, and the answer is too long to be kept"


class NewBackup(BaseModel):
    """How the keys in the backup are sealed: a passphrase, stretched by whoever asks."""

    model_config = ConfigDict(extra="forbid")

    salt: Annotated[str, Field(description="of argon2id, base64", max_length=64)]
    operations: Annotated[int, Field(description="of argon2id", ge=1, le=16)]
    memory_bytes: Annotated[int, Field(description="of argon2id", ge=8192, le=1024**3)]
    key: Annotated[str, Field(description="what argon2id made of the passphrase: 32 bytes, base64", max_length=64)]
    chunks: Annotated[bool, Field(description="false: only the names of chunks")] = True

    def lock(self) -> Lock:
        """As a value.

        Raises:
            BadInputError: not base64, or of another length.
        """
        try:
            salt, key = (base64.b64decode(text, validate=True) for text in (self.salt, self.key))
        except (ValueError, binascii.Error):
            raise BadInputError("salt and key are base64") from None
        if len(key) != KEY_BYTES or len(salt) != 16:
            raise BadInputError(f"the key has {KEY_BYTES} bytes, the salt 16")
        return Lock(salt, self.operations, self.memory_bytes, key)


@router.get("/api/v1/backups", summary="Backups that were made, newest first")
async def list_backups(
    request: Request,
    _actor: Annotated[Actor, Depends(allow("devices:read"))],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 20,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Where they are kept is not known here. `worry` says what is wrong with the newest; null while all is well.
    `expected_bytes`: how long the chunks are that the next one would hold.
    """
    before = decode_cursor(cursor)
    if before is not None and not isinstance(before, int):
        raise BadInputError("this cursor is not one of this list", remedy="start again without `cursor`")
    manager = manager_of(request)
    async with manager.database.read() as tx:
        rows = await store.newest(tx, limit=limit, before=before)
        worry = await store.worry(tx, manager.clock.now())
        expected = await expected_bytes(tx)
    items = [{"at": rfc3339(row.at), "by": row.actor, **row.body} for row in rows]
    page = paged(items, limit=limit, cursor=rows[-1].sequence if rows else None)
    return {**page, "worry": worry, "expected_bytes": expected}


@router.post("/api/v1/backups", summary="Write a backup, and send it", response_class=StreamingResponse)
async def create(
    new: NewBackup, request: Request, actor: Annotated[Actor, Depends(allow("backups:write"))]
) -> StreamingResponse:
    """The answer is the file (`flotilla-backup/1`). It is whole only with its last part: a connection that breaks in
    between leaves one that is refused. Keys in it are sealed by `key`, which is not kept.
    """
    if "idempotency-key" in request.headers:
        raise Problem(422, "E_IDEMPOTENCY_KEY", "Unusable Idempotency-Key", _NO_KEY)
    manager = manager_of(request)
    maker = Maker(manager.database, manager.depot, manager.settings.data_dir, new.lock(), request.app.version)
    headers = {"Cache-Control": "no-store"}
    written = Written(chunks=new.chunks, at=manager.clock.now())
    return StreamingResponse(
        _sent(manager, maker, written, actor), media_type="application/octet-stream", headers=headers
    )


async def _sent(manager: "Manager", maker: Maker, written: Written, actor: Actor) -> AsyncIterator[bytes]:
    async for piece in maker.pieces(written):
        yield piece
    async with manager.database.write() as tx:
        await store.record(tx, actor=actor, body=written.document(), now=manager.clock.now())
