"""Bearer tokens, and the browsers that signed in with one.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, cast

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import BrowserSession, Token, User

#: `seen_at` of a browser is written at most this often.
SEEN_STEP: Final = timedelta(minutes=1)


async def count(tx: AsyncSession) -> int:
    """How many tokens there ever were."""
    return await tx.scalar(select(func.count()).select_from(Token)) or 0


async def valid(tx: AsyncSession, token_hash: str, now: datetime) -> tuple[Token, User | None] | None:
    """The token with this hash and whose it is, if neither of them is revoked or expired."""
    query = select(Token, User).outerjoin(User, User.id == Token.user_id).where(Token.token_hash == token_hash)
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    token, user = cast("tuple[Token, User | None]", row)  # an outer join: there may be no user
    return (token, user) if alive(token, now) and (user is None or user_alive(user, now)) else None


async def revoked(tx: AsyncSession, token_hash: str) -> Token | None:
    """The token with this hash, if somebody revoked it."""
    return await tx.scalar(select(Token).where(Token.token_hash == token_hash, Token.revoked_at.is_not(None)))


async def expiring(tx: AsyncSession, now: datetime, before: datetime) -> Sequence[Token]:
    """Living tokens that end before `before`, soonest first; not those of a sign-in, which is soon done again."""
    living = (Token.revoked_at.is_(None), Token.login.is_(False))
    query = select(Token).where(*living, Token.expires_at > now, Token.expires_at < before)
    return (await tx.scalars(query.order_by(Token.expires_at))).all()


def alive(token: Token, now: datetime) -> bool:
    """True while `token` opens anything."""
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def user_alive(user: User, now: datetime) -> bool:
    """True while this person may sign in, and their tokens open anything."""
    return user.revoked_at is None and (user.expires_at is None or user.expires_at > now)


async def page(tx: AsyncSession, *, limit: int, after: str | None = None) -> Sequence[tuple[Token, str | None]]:
    """Tokens by id with the name of whose they are; `after` pages on. Those of sign-ins are with their users."""
    query = select(Token, User.name).outerjoin(User, User.id == Token.user_id).where(Token.login.is_(False))
    query = query.order_by(Token.id).limit(limit)
    if after is not None:
        query = query.where(Token.id > after)
    return [(token, name) for token, name in await tx.execute(query)]


async def named(tx: AsyncSession, name: str, now: datetime) -> Token | None:
    """A living token of this name that belongs to nobody."""
    rows = await tx.scalars(select(Token).where(Token.name == name, Token.user_id.is_(None)))
    return next((row for row in rows if alive(row, now)), None)


async def login(tx: AsyncSession, token_hash: str) -> Token | None:
    """The token with this hash, if it was made by signing in."""
    return await tx.scalar(select(Token).where(Token.token_hash == token_hash, Token.login.is_(True)))


async def forget_old_logins(tx: AsyncSession, before: datetime) -> None:
    """Those that ended by themselves; revoked ones are remembered, as their use is misuse."""
    await tx.execute(delete(Token).where(Token.login.is_(True), Token.revoked_at.is_(None), Token.expires_at < before))


async def browser(tx: AsyncSession, cookie_hash: str) -> tuple[BrowserSession, Token | None, User | None] | None:
    """The browser with this cookie, the token that it signed in with, and whose it is."""
    query = (
        select(BrowserSession, Token, User)
        .outerjoin(Token, Token.id == BrowserSession.token_id)
        .outerjoin(User, or_(User.id == BrowserSession.user_id, User.id == Token.user_id))
        .where(BrowserSession.cookie_hash == cookie_hash)
    )
    row = (await tx.execute(query)).first()
    return (row[0], row[1], row[2]) if row else None


async def forget_browser(tx: AsyncSession, cookie_hash: str) -> None:
    """Sign a browser out. Unknown: nothing."""
    await tx.execute(delete(BrowserSession).where(BrowserSession.cookie_hash == cookie_hash))


async def forget_old_browsers(tx: AsyncSession, idle_since: datetime, now: datetime) -> None:
    """Sign out who did nothing since `idle_since`, and whose time is over."""
    old = or_(BrowserSession.seen_at < idle_since, BrowserSession.expires_at < now)
    await tx.execute(delete(BrowserSession).where(old))
