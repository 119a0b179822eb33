"""Tokens that nobody asked for by REST: the first admin token, and that of a manager inside another program.

I/O: disk.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import update

from fleet.access.roles import system
from fleet.access.secrets import new_id, new_secret
from fleet.store import audit, tokens
from fleet.store.tables import Token
from shared.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from fleet.access.secrets import Pepper
    from fleet.store.database import Database
    from shared.clock import Clock

#: Who asks, where a manager is embedded; people cannot give a token this name by accident: it has a slash.
EMBEDDED: Final = "embedded/python"


async def ensure_admin(database: Database, pepper: Pepper, path: Path, now: datetime) -> str | None:
    """The new token, if the database had none yet; else None. It is in `path` before it is valid."""
    async with database.read() as tx:
        if await tokens.count(tx):
            return None
    secret = _secret(path)
    await _add(database, "admin", pepper.digest(secret), now)
    return secret


@asynccontextmanager
async def passing_admin(database: Database, pepper: Pepper, clock: Clock) -> AsyncIterator[str]:
    """An admin token for the program around an embedded manager. It lives only in memory, and ends with it.

    Those of programs that were killed are ended first: only one manager works on a folder.
    """
    await _end_passing(database, clock.now())
    secret = new_secret("token")
    await _add(database, EMBEDDED, pepper.digest(secret), clock.now())
    try:
        yield secret
    finally:
        await _end_passing(database, clock.now())


async def _end_passing(database: Database, now: datetime) -> None:
    async with database.write() as tx:
        living = (Token.name == EMBEDDED, Token.revoked_at.is_(None))
        await tx.execute(update(Token).where(*living).values(revoked_at=now))


async def _add(database: Database, name: str, token_hash: str, now: datetime) -> None:
    token = Token(
        id=new_id("to"),
        name=name,
        role="admin",
        token_hash=token_hash,
        created_at=now,
        expires_at=None,
        revoked_at=None,
    )
    async with database.write() as tx:
        tx.add(token)
        await audit.record(tx, actor=system("start"), action="token.create", subject=token.id, body={}, now=now)


def _secret(path: Path) -> str:
    """What the file holds; made there durably if there is nothing yet."""
    found = path.read_text().strip() if path.exists() else ""
    if not found:
        found = new_secret("token")
        replace_file(path, f"{found}\n".encode())
    return found
