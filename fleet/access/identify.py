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
    from fleet.store.tables import Token

COOKIE: Final = "flotilla_session"
MISUSE_STEP: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `csrf` is set for browsers: unsafe methods must repeat it."""

    name: str
    role: str
    csrf: str = ""

    def actor(self, request_id: str) -> Actor:
        """The actor of one request."""
        return Actor(self.name, self.role, request_id)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new browser session: the cookie's value, known only to the browser from now on, and its CSRF token."""

    cookie: str
    csrf: str


class Doorman:
    """Knows tokens and sessions by their hashes."""

    def __init__(self, database: Database, pepper: Pepper, idle: timedelta) -> None:
        self._database, self._pepper, self._idle = database, pepper, idle
        self._misuses: dict[str, datetime] = {}  # revoked token -> when it was last told of

    async def identify(self, *, authorization: str, cookie: str, now: datetime) -> Caller | None:
        """The caller, or None for a stranger. With a bearer token the cookie is not looked at."""
        if authorization:
            scheme, _, secret = authorization.partition(" ")
            return await self._bearer(secret.strip(), now) if scheme.lower() == "bearer" else None
        secret = session_cookie(cookie)
        return await self._browser(secret, now) if secret else None

    async def sign_in(self, secret: str, now: datetime) -> SignedIn | None:
        """A new session for the owner of a token; None if the token opens nothing."""
        fresh = SignedIn(new_secret("session"), new_secret("session"))
        async with self._database.write() as tx:
            token = await tokens.valid(tx, self._pepper.digest(secret), now)
            if token is None:
                return None
            await tokens.forget_idle_browsers(tx, now - self._idle)
            tx.add(
                BrowserSession(
                    cookie_hash=self._pepper.digest(fresh.cookie),
                    token_id=token.id,
                    csrf=fresh.csrf,
                    created_at=now,
                    seen_at=now,
                )
            )
        return fresh

    async def sign_out(self, cookie: str) -> None:
        """End the session in this cookie header. Unknown: nothing."""
        async with self._database.write() as tx:
            await tokens.forget_browser(tx, self._pepper.digest(session_cookie(cookie)))

    async def _bearer(self, secret: str, now: datetime) -> Caller | None:
        async with self._database.read() as tx:
            token = await tokens.valid(tx, self._pepper.digest(secret), now)
            revoked = None if token else await tokens.revoked(tx, self._pepper.digest(secret))
        if revoked is not None:
            await self._misused(revoked, now)
        return Caller(token.name, token.role) if token else None

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
        session, token = found
        if not tokens.alive(token, now) or now - session.seen_at > self._idle:
            return None
        if now - session.seen_at > tokens.SEEN_STEP:
            async with self._database.write() as tx:
                await _seen(tx, digest, now)
        return Caller(token.name, token.role, session.csrf)


async def _seen(tx: AsyncSession, digest: str, now: datetime) -> None:
    session = await tx.get(BrowserSession, digest)
    if session is not None:
        session.seen_at = now


def session_cookie(header: str) -> str:
    """Our cookie in a `Cookie` header; empty when it is not there."""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
