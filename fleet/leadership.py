"""Lead, or wait until the leader is gone: a lease in the database, renewed while this process answers (ADR 30).

    following --lease free--> leading --renewal refused, or none in time--> the process ends

A leader that was stopped and comes back finds its term over: by its own clock before it does anything, and by the
fence at the beginning of each of its turns in the database.

I/O: tasks, chance.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from fleet.errors import LeadLostError, OtherKeysError
from fleet.store import leadership as store
from fleet.store.database import SILENT_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.store.database import Database

logger = logging.getLogger(__name__)

#: A leader that does not renew for so long is followed by another.
LEASE: Final = timedelta(seconds=8)
RENEW_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 1.0
#: One try to renew.
_PATIENCE_SECONDS: Final = 3.0
_RELEASE_SECONDS: Final = 2.0
#: To take over it waits for the end of the last leader's turn.
_TURN_SECONDS: Final = SILENT_SECONDS + _PATIENCE_SECONDS


class Leadership:
    """The role of this manager. With SQLite it always leads: the lock on its data folder sees to that.

    `own` is a second `Database` on the same URL, so that leases never wait for a connection; this object opens and
    closes it. `keys` is the same text for managers with the same keys.
    """

    def __init__(self, database: Database, own: Database, *, host: str, url: str, keys: str) -> None:
        self._shared, self._own, self._url, self._keys = database, own, url, keys
        self.name = f"{host[:100]}-{secrets.token_hex(4)}"
        self._term: int | None = None
        self._ends = 0.0  # by the clock of the event loop; earlier than in the database
        self.database = database if database.one_process else database.fenced(self._fence)

    @property
    def leads(self) -> bool:
        """Whether this manager leads, as far as it knows without asking."""
        return self._shared.one_process or self._term is not None

    @property
    def term(self) -> int:
        """Its number of leadership; 0 for one that follows, or is alone."""
        return self._term or 0

    async def gain(self) -> None:
        """Return once this manager leads.

        Raises:
            OtherKeysError: who leads has other keys than this manager.
        """
        if self._shared.one_process:
            return
        await self._own.open()
        told: str | None = None
        while not self.leads:
            try:
                async with asyncio.timeout(_TURN_SECONDS):
                    leader = await self._look()
                if leader != told:
                    logger.info("manager follows name=%s leader=%s", self.name, leader)
                    told = leader
            except (SQLAlchemyError, OSError) as error:
                logger.warning("no look at the leader error=%s", error)
            if not self.leads:
                await asyncio.sleep(LOOK_SECONDS)
        logger.info("manager leads name=%s term=%d", self.name, self.term)

    async def keep(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            LeadLostError: another manager leads, or may lead by now.
        """
        while not self._shared.one_process:
            await asyncio.sleep(RENEW_SECONDS)
            if _now() > self._ends:
                raise LeadLostError(f"{self.name} could not renew its lead for {LEASE.total_seconds():.0f} s")
            try:
                await self._renew()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("lead not renewed error=%s", error)

    async def release(self) -> None:
        """Let another manager lead at once. A second call does nothing."""
        term, self._term = self._term, None
        if term is None:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS), self._own.aside() as tx:
                await store.release(tx, term)
        except (SQLAlchemyError, OSError) as error:
            logger.warning("lead not released, it ends by itself error=%s", error)

    async def close(self) -> None:
        """End the connection for leases."""
        await self._own.close()

    async def _look(self) -> str | None:
        """Take the lead if it is free; else who leads."""
        async with self._own.read() as tx:
            leader = await store.leader(tx)
        if leader is not None:
            if leader.keys != self._keys:
                raise OtherKeysError(f"{leader.holder} ({leader.url}) leads with other keys than this manager's")
            return leader.holder
        asked = _now()
        async with self._own.write() as tx:
            term = await store.take(tx, holder=self.name, url=self._url, keys=self._keys, lease=LEASE)
        if term is not None:
            self._term, self._ends = term, asked + LEASE.total_seconds()
            await self._renew()  # it may have waited long for its turn
        return None

    async def _renew(self) -> None:
        asked = _now()
        async with asyncio.timeout(_PATIENCE_SECONDS), self._own.aside() as tx:
            renewed = await store.renew(tx, self.term, LEASE)
        if not renewed:
            raise LeadLostError(f"another manager leads instead of {self.name}")
        self._ends = asked + LEASE.total_seconds()

    async def _fence(self, tx: AsyncSession) -> None:
        """The first in each turn of the leader: from here to its commit nobody can take over."""
        if self._term is None or not await store.holds(tx, self._term):
            raise LeadLostError(f"{self.name} does not lead, so it writes nothing")


def _now() -> float:
    return asyncio.get_running_loop().time()
