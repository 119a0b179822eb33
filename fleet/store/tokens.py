"""Bearer tokens, and the browsers that signed in with one.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import BrowserSession, Token

#: `seen_at` of a browser is written at most this often.
SEEN_STEP: Final = timedelta(minutes=1)


async def count(tx: AsyncSession) -> int:
    """How many tokens there ever were."""
    return await tx.scalar(select(func.count()).select_from(Token)) or 0


async def valid(tx: AsyncSession, token_hash: str, now: datetime) -> Token | None:
    """The token with this hash, if it is neither revoked nor expired."""
    token = await tx.scalar(select(Token).where(Token.token_hash == token_hash))
    return token if token is not None and alive(token, now) else None


async def revoked(tx: AsyncSession, token_hash: str) -> Token | None:
    """The token with this hash, if somebody revoked it."""
    return await tx.scalar(select(Token).where(Token.token_hash == token_hash, Token.revoked_at.is_not(None)))


async def expiring(tx: AsyncSession, now: datetime, before: datetime) -> Sequence[Token]:
    """Living tokens that end before `before`, soonest first."""
    query = select(Token).where(Token.revoked_at.is_(None), Token.expires_at > now, Token.expires_at < before)
    return (await tx.scalars(query.order_by(Token.expires_at))).all()


def alive(token: Token, now: datetime) -> bool:
    """True while `token` opens anything."""
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


async def page(tx: AsyncSession, *, limit: int, after: str | None = None) -> Sequence[Token]:
    """Tokens by id; `after` pages on."""
    query = select(Token).order_by(Token.id).limit(limit)
    if after is not None:
        query = query.where(Token.id > after)
    return (await tx.scalars(query)).all()


async def other_admins(tx: AsyncSession, token_id: str, now: datetime) -> int:
    """Living admin tokens beside this one."""
    found = await tx.scalars(select(Token).where(Token.role == "admin", Token.id != token_id))
    return sum(alive(token, now) for token in found)


async def browser(tx: AsyncSession, cookie_hash: str) -> tuple[BrowserSession, Token] | None:
    """The browser with this cookie and the token that it signed in with."""
    query = (
        select(BrowserSession, Token)
        .join(Token, Token.id == BrowserSession.token_id)
        .where(BrowserSession.cookie_hash == cookie_hash)
    )
    row = (await tx.execute(query)).first()
    return (row[0], row[1]) if row else None


async def forget_browser(tx: AsyncSession, cookie_hash: str) -> None:
    """Sign a browser out. Unknown: nothing."""
    await tx.execute(delete(BrowserSession).where(BrowserSession.cookie_hash == cookie_hash))


async def forget_idle_browsers(tx: AsyncSession, before: datetime) -> None:
    """Sign out who did nothing since `before`."""
    await tx.execute(delete(BrowserSession).where(BrowserSession.seen_at < before))
