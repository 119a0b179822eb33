"""People who come with name and password: count the attempt durably, compare, then let them in.

    attempt counted -> argon2id -> session or token, the name's failures forgotten

An unknown name, a wrong password and a person who was revoked get the same answer after the same work.

I/O: tasks, chance.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, TypeVar

from fleet.access import backoff
from fleet.access.passwords import Passwords, check_new
from fleet.access.roles import Actor
from fleet.access.secrets import new_id, new_secret
from fleet.alerts import desk
from fleet.store import audit, tokens, users
from fleet.store.tables import Token
from shared.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.access.identify import Doorman, SignedIn
    from fleet.access.secrets import Pepper
    from fleet.store.database import Database
    from fleet.store.tables import User
    from shared.clock import Clock

logger = logging.getLogger(__name__)

Done = TypeVar("Done")


class SignInError(RefusedError):
    """Name and password do not belong together. Whether the name exists is not told."""

    code = "E_SIGN_IN"
    status: ClassVar[int] = 401
    default_remedy = "type them again; an admin gives a new password with: flotilla user passwd NAME"


class SignInWaitError(UnavailableError):
    """Too many wrong passwords for this name, or from this address."""

    code = "E_SIGN_IN_WAIT"
    status: ClassVar[int] = 429

    def __init__(self, wait: timedelta) -> None:
        self.retry_seconds = max(1, math.ceil(wait.total_seconds()))
        super().__init__(
            f"too many wrong passwords for this name or from this address; nothing is tried for {self.retry_seconds} s",
            remedy="wait; a token still opens the manager meanwhile: flotilla login URL --token TOKEN",
        )


@dataclass(frozen=True, slots=True)
class Login:
    """A token that signing in made. `secret` is shown once."""

    secret: str
    token: Token
    user: User


class SignIns:
    """One for each manager. What counts is in the database, so that a restart forgives nothing."""

    def __init__(self, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database, self._pepper, self._clock = database, pepper, clock
        self.passwords = Passwords(pepper)

    async def browser(self, doorman: Doorman, name: str, password: str, *, address: str, cookie: str) -> SignedIn:
        """A new session for a browser.

        Raises:
            SignInError, SignInWaitError, BusyError: nobody is let in.
        """

        async def begin(tx: AsyncSession, user: User, now: datetime) -> SignedIn:
            await _record(tx, user, "browser", address, now)
            return await doorman.welcome(tx, user, now, cookie=cookie)

        return await self._let_in(name, password, address, begin)

    async def command_line(self, name: str, password: str, *, address: str, lasts: timedelta) -> Login:
        """A token that ends by itself, no later than the person's own time.

        Raises:
            SignInError, SignInWaitError, BusyError: nobody is let in.
        """
        secret = new_secret("token")

        async def begin(tx: AsyncSession, user: User, now: datetime) -> Login:
            await tokens.forget_old_logins(tx, now - users.LISTED)
            ends = now + lasts
            token = Token(
                id=new_id("to"),
                name=user.name,
                role=user.role,
                token_hash=self._pepper.digest(secret),
                created_at=now,
                expires_at=min(ends, user.expires_at or ends),
                user_id=user.id,
                login=True,
            )
            tx.add(token)
            await _record(tx, user, token.id, address, now)
            return Login(secret, token, user)

        return await self._let_in(name, password, address, begin)

    async def change_own(self, name: str, current: str, new: str, *, address: str, request_id: str) -> int:
        """Another password, by the person alone; from how many places they were signed out, this one included.

        Raises:
            SignInError, SignInWaitError, BusyError: the current password is wrong.
            PasswordError: the new one cannot be chosen.
        """
        check_new(new, name)
        stored = await self.passwords.hashed(new)

        async def change(tx: AsyncSession, user: User, now: datetime) -> int:
            user.password_hash, user.password_at = stored, now
            ended = await users.end_sign_ins(tx, user.id, now)
            actor = Actor(user.name, user.role, request_id, user.name)
            await audit.record(tx, actor=actor, action="user.password", subject=user.name, body={}, now=now)
            return ended

        return await self._let_in(name, current, address, change)

    async def _let_in(
        self,
        name: str,
        password: str,
        address: str,
        then: Callable[[AsyncSession, User, datetime], Awaitable[Done]],
    ) -> Done:
        self.passwords.check_room()
        stored = await self._attempt(name, address)
        fits = await self.passwords.fits(password, stored)
        if not fits:
            logger.info("sign-in refused address=%s", address)
            raise SignInError("name and password do not belong together")
        now = self._clock.now()
        async with self._database.write() as tx:
            user = await users.by_name(tx, name)
            if user is None or user.password_hash != stored or not tokens.user_alive(user, now):
                raise SignInError("name and password do not belong together")  # it changed while we compared
            await self._forgive(tx, name, address, now)
            return await then(tx, user, now)

    async def _attempt(self, name: str, address: str) -> str | None:
        """Count one attempt as failed, before anything is compared; the stored form of the password, if any."""
        now = self._clock.now()
        async with self._database.write() as tx:
            user = await users.by_name(tx, name)
            before = {kind: await users.attempts(tx, key) for kind, key in self._keys(name, address).items()}
            if wait := max(backoff.left(record, now) for record in before.values()):
                raise SignInWaitError(wait)
            for kind, key in self._keys(name, address).items():
                await users.remember(tx, key, backoff.counted(before[kind], kind, now), now)
            if user is not None and before["name"].failures >= backoff.FREE["name"]:
                await _alarm(tx, f"user {user.name}", before["name"].failures, address, now)
            elif before["address"].failures >= backoff.FREE["address"]:
                await _alarm(tx, f"address {address}", before["address"].failures, address, now)
            alive = user is not None and tokens.user_alive(user, now)
        return user.password_hash if user is not None and alive else None

    async def _forgive(self, tx: AsyncSession, name: str, address: str, now: datetime) -> None:
        for kind, key in self._keys(name, address).items():
            await users.remember(tx, key, backoff.forgiven(await users.attempts(tx, key), kind), now)

    def _keys(self, name: str, address: str) -> dict[backoff.Kind, str]:
        return {"name": self._pepper.digest(f"name {name}"), "address": self._pepper.digest(f"address {address}")}


async def _record(tx: AsyncSession, user: User, with_what: str, address: str, now: datetime) -> None:
    actor = Actor(user.name, user.role, person=user.name)
    said = {"with": with_what, "address": address}
    await audit.record(tx, actor=actor, action="user.sign-in", subject=user.name, body=said, now=now)


async def _alarm(tx: AsyncSession, subject: str, failures: int, address: str, now: datetime) -> None:
    text = f"{failures} wrong passwords in a row for {subject}; the last one came from {address}"
    body = {"failures": failures, "address": address}
    await desk.open_alert(
        tx,
        kind="security",
        scope="fleet",
        subject=f"sign-in {subject}",
        severity="medium",
        text=text,
        body=body,
        now=now,
    )
