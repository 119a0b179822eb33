"""The first admin token, so that somebody can come in at all.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.access.roles import system
from fleet.access.secrets import new_id, new_secret
from fleet.store import audit, tokens
from fleet.store.tables import Token
from shared.durable import replace_file

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from fleet.access.secrets import Pepper
    from fleet.store.database import Database


async def ensure_admin(database: Database, pepper: Pepper, path: Path, now: datetime) -> str | None:
    """The new token, if the database had none yet; else None. It is in `path` before it is valid."""
    async with database.read() as tx:
        if await tokens.count(tx):
            return None
    secret = _secret(path)
    token = Token(
        id=new_id("to"),
        name="admin",
        role="admin",
        token_hash=pepper.digest(secret),
        created_at=now,
        expires_at=None,
        revoked_at=None,
    )
    async with database.write() as tx:
        tx.add(token)
        await audit.record(tx, actor=system("start"), action="token.create", subject=token.id, body={}, now=now)
    return secret


def _secret(path: Path) -> str:
    """What the file holds; made there durably if there is nothing yet."""
    found = path.read_text().strip() if path.exists() else ""
    if not found:
        found = new_secret("token")
        replace_file(path, f"{found}\n".encode())
    return found
