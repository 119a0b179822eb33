"""People who sign in with a password, what was tried under their names, and what they signed in with.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.backoff import FORGOTTEN, Record
from fleet.store import tokens
from fleet.store.tables import BrowserSession, SignInAttempt, Token, User

#: Sign-ins that are over are listed for so long.
LISTED: Final = timedelta(days=7)


async def by_name(tx: AsyncSession, name: str) -> User | None:
    """The person with this name, revoked or not."""
    return await tx.scalar(select(User).where(User.name == name))


async def page(tx: AsyncSession, *, limit: int, after: str | None = None) -> Sequence[User]:
    """People by name; `after` pages on."""
    query = select(User).order_by(User.name).limit(limit)
    return (await tx.scalars(query if after is None else query.where(User.name > after))).all()


async def any_at_all(tx: AsyncSession) -> bool:
    """Whether anybody could sign in with a password."""
    return await tx.scalar(select(User.id).where(User.revoked_at.is_(None)).limit(1)) is not None


async def other_admins(
    tx: AsyncSession, now: datetime, *, without_user: str | None = None, without_token: str | None = None
) -> int:
    """Who still is an admin when this person with their tokens, or this token, is gone: living people and tokens."""
    people = {one.id: one for one in await tx.scalars(select(User)) if tokens.user_alive(one, now)}
    admins = sum(one.role == "admin" and one.id != without_user for one in people.values())
    rows = await tx.scalars(select(Token).where(Token.role == "admin", Token.login.is_(False)))
    return admins + sum(
        tokens.alive(row, now)
        and row.id != without_token
        and (row.user_id is None or (row.user_id in people and row.user_id != without_user))
        for row in rows
    )


async def tokens_of(tx: AsyncSession, user_id: str, now: datetime) -> Sequence[Token]:
    """Living tokens that this person made for programs."""
    rows = await tx.scalars(select(Token).where(Token.user_id == user_id, Token.login.is_(False)).order_by(Token.id))
    return [row for row in rows if tokens.alive(row, now)]


async def signed_in(tx: AsyncSession, user_id: str, now: datetime) -> tuple[Sequence[BrowserSession], Sequence[Token]]:
    """Browsers and command lines in which this person is signed in."""
    mine = or_(
        BrowserSession.user_id == user_id,
        BrowserSession.token_id.in_(select(Token.id).where(Token.user_id == user_id)),
    )
    browsers = await tx.scalars(
        select(BrowserSession).where(mine, BrowserSession.expires_at > now).order_by(BrowserSession.created_at)
    )
    logins = await tx.scalars(
        select(Token).where(Token.user_id == user_id, Token.login.is_(True)).order_by(Token.created_at)
    )
    return browsers.all(), [row for row in logins if tokens.alive(row, now)]


async def end_sign_ins(tx: AsyncSession, user_id: str, now: datetime) -> int:
    """Sign this person out everywhere; where that was, in number. Their tokens for programs stay."""
    browsers, logins = await signed_in(tx, user_id, now)
    for browser in browsers:
        await tx.delete(browser)
    for row in logins:
        row.expires_at = now
    return len(browsers) + len(logins)


async def end_tokens(tx: AsyncSession, user_id: str, now: datetime) -> Sequence[Token]:
    """Revoke every token of this person: those that lived."""
    rows = await tx.scalars(select(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None)))
    living = [row for row in rows if tokens.alive(row, now)]
    for row in living:
        row.revoked_at = now
    return living


async def attempts(tx: AsyncSession, key: str) -> Record:
    """What is remembered of one name or address."""
    row = await tx.get(SignInAttempt, key)
    return Record(row.failures, row.until) if row is not None else Record()


async def remember(tx: AsyncSession, key: str, record: Record | None, now: datetime) -> None:
    """Keep `record` (None: nothing) for this key, and forget what is old."""
    await tx.execute(delete(SignInAttempt).where(SignInAttempt.at < now - FORGOTTEN))
    if record is None:
        await tx.execute(delete(SignInAttempt).where(SignInAttempt.key == key))
        return
    await tx.merge(SignInAttempt(key=key, failures=record.failures, until=record.until, at=now))
    await tx.flush()
