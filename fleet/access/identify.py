"""From the headers of a request to an actor: a bearer token, or the cookie of a browser that signed in.

I/O: chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from fleet.access.roles import Actor
from fleet.access.secrets import new_secret
from fleet.alerts import desk
from fleet.store import tokens
from fleet.store.tables import BrowserSession

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.access.secrets import Pepper
    from fleet.store.database import Database
    from fleet.store.tables import Token, User

COOKIE: Final = "flotilla_session"
MISUSE_STEP: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `csrf` is set for browsers: unsafe methods must repeat it."""

    name: str
    role: str
    csrf: str = ""
    person: str = ""  # the user's name; empty: a token that is nobody's

    def actor(self, request_id: str) -> Actor:
        """The actor of one request."""
        return Actor(self.name, self.role, request_id, self.person)

    @classmethod
    def of(cls, token: Token | None, user: User | None, csrf: str = "") -> Caller:
        """Who comes with this token, this user, or a token of this user: `ann`, or `ann/nightly` for one she made."""
        if user is not None and (token is None or token.login):
            return cls(user.name, user.role, csrf, user.name)
        if token is None:
            raise ValueError("neither a token nor a user")
        if user is not None:
            return cls(f"{user.name}/{token.name}", token.role, csrf, user.name)
        return cls(token.name, token.role, csrf)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new browser session: the cookie's value, known only to the browser from now on, and its CSRF token."""

    cookie: str
    csrf: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a browser stays signed in: without doing anything, and at most."""

    idle: timedelta
    longest: timedelta


class Doorman:
    """Knows tokens and sessions by their hashes."""

    def __init__(self, database: Database, pepper: Pepper, limits: Limits) -> None:
        self._database, self._pepper, self._limits = database, pepper, limits
        self._misuses: dict[str, datetime] = {}  # revoked token -> when it was last told of

    async def identify(self, *, authorization: str, cookie: str, now: datetime) -> Caller | None:
        """The caller, or None for a stranger. With a bearer token the cookie is not looked at."""
        if authorization:
            secret = bearer(authorization)
            return await self._bearer(secret, now) if secret else None
        secret = session_cookie(cookie)
        return await self._browser(secret, now) if secret else None

    async def sign_in(self, secret: str, now: datetime, *, cookie: str = "") -> SignedIn | None:
        """A new session for the owner of a token; None if the token opens nothing. The session before it ends."""
        async with self._database.write() as tx:
            found = await tokens.valid(tx, self._pepper.digest(secret), now)
            return None if found is None else await self._begin(tx, now, cookie, token=found[0])

    async def welcome(self, tx: AsyncSession, user: User, now: datetime, *, cookie: str) -> SignedIn:
        """A new session for somebody whose password was right. The session in this cookie header ends."""
        return await self._begin(tx, now, cookie, user=user)

    async def sign_out(self, cookie: str) -> None:
        """End the session in this cookie header. Unknown: nothing."""
        async with self._database.write() as tx:
            await tokens.forget_browser(tx, self._pepper.digest(session_cookie(cookie)))

    async def end_login(self, tx: AsyncSession, authorization: str, now: datetime) -> bool:
        """End the token in this header if signing in made it; False for other ones."""
        token = await tokens.login(tx, self._pepper.digest(bearer(authorization)))
        if token is not None:
            token.expires_at = now
        return token is not None

    async def _begin(
        self, tx: AsyncSession, now: datetime, cookie: str, *, token: Token | None = None, user: User | None = None
    ) -> SignedIn:
        fresh = SignedIn(new_secret("session"), new_secret("session"))
        await tokens.forget_old_browsers(tx, now - self._limits.idle, now)
        if before := session_cookie(cookie):
            await tokens.forget_browser(tx, self._pepper.digest(before))
        tx.add(
            BrowserSession(
                cookie_hash=self._pepper.digest(fresh.cookie),
                token_id=token.id if token else None,
                user_id=user.id if user else None,
                csrf=fresh.csrf,
                created_at=now,
                seen_at=now,
                expires_at=now + self._limits.longest,
            )
        )
        return fresh

    async def _bearer(self, secret: str, now: datetime) -> Caller | None:
        async with self._database.read() as tx:
            found = await tokens.valid(tx, self._pepper.digest(secret), now)
            revoked = None if found else await tokens.revoked(tx, self._pepper.digest(secret))
        if revoked is not None:
            await self._misused(revoked, now)
        return Caller.of(*found) if found else None

    async def _misused(self, token: Token, now: datetime) -> None:
        """Somebody still uses what was taken away: an alert, kept up to date at most once in ten minutes."""
        last = self._misuses.get(token.id)
        if last is not None and now - last < MISUSE_STEP:
            return
        self._misuses[token.id] = now
        async with self._database.write() as tx:
            await desk.open_alert(
                tx,
                kind="security",
                scope="fleet",
                subject=f"token {token.id}",
                severity="high",
                text=f"the revoked token {token.id} ({token.name}) was used",
                body={"token": token.id, "name": token.name, "role": token.role},
                now=now,
            )

    async def _browser(self, secret: str, now: datetime) -> Caller | None:
        digest = self._pepper.digest(secret)
        async with self._database.read() as tx:
            found = await tokens.browser(tx, digest)
        if found is None:
            return None
        session, token, user = found
        alive = (token is None or tokens.alive(token, now)) and (user is None or tokens.user_alive(user, now))
        if not alive or now - session.seen_at > self._limits.idle or session.expires_at <= now:
            return None
        if now - session.seen_at > tokens.SEEN_STEP:
            async with self._database.write() as tx:
                await _seen(tx, digest, now)
        return Caller.of(token, user, session.csrf)


async def _seen(tx: AsyncSession, digest: str, now: datetime) -> None:
    session = await tx.get(BrowserSession, digest)
    if session is not None:
        session.seen_at = now


def bearer(header: str) -> str:
    """The secret in an `Authorization` header; empty when it is of another kind."""
    scheme, _, secret = header.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def session_cookie(header: str) -> str:
    """Our cookie in a `Cookie` header; empty when it is not there."""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
