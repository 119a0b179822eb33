"""The shell of the gate's comparisons: learn what is usual, take in what came, forget what is old.

Sums are made in read transactions, so that devices are not kept waiting; only their results are written.

I/O: tasks.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from fleet.driver_parts import DriverParts
from fleet.rollouts import gathering
from fleet.store import gates, tables
from fleet.store import rollouts as store
from shared.errors import FlotillaError

logger = logging.getLogger(__name__)

REST_SECONDS: Final = 1.0
#: An interval is at least so long.
SHORTEST: Final = timedelta(seconds=10)
PRUNE_EVERY: Final = timedelta(hours=1)
#: Habits of a rollout that is over are kept for a person who looks.
KEEP_HABITS: Final = timedelta(days=1)


class GateDriver:
    """Feeds the comparisons of every rollout under way. One per manager."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        self._pruned: datetime | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.advance()
            except FlotillaError as error:
                logger.warning("gates stand still error=%s detail=%s", error.code, error.detail)
            await asyncio.sleep(REST_SECONDS)

    async def advance(self) -> None:
        """One slice of devices to learn, and one interval to take in, for every rollout under way."""
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            rows = [row for row in await store.active(tx) if row.state in ("running", "paused")]
        for row in rows:
            await self._learn(row, now)
            if await self._take(row, now):
                self._parts.hub.wake()
        await self._prune(now)

    async def _learn(self, row: tables.Rollout, now: datetime) -> None:
        async with self._parts.database.read() as tx:
            found = await gathering.first_look(tx, row, now)
        if not found:
            return
        async with self._parts.database.write() as tx:
            await gates.put_habits(tx, found)
        async with self._parts.database.read() as tx:
            rates = await gathering.second_look(tx, row, found)
        async with self._parts.database.write() as tx:
            await gates.complete_habits(tx, rates)

    async def _take(self, row: tables.Rollout, now: datetime) -> bool:
        async with self._parts.database.read() as tx:
            state = await gates.trials(tx, row.id)
            since = row.created_at if state is None else state.until
            until = gathering.next_end(since, now)
            if until - since < SHORTEST:
                return False
            came = await gathering.interval(tx, row, since, until)
            doubt = await gathering.doubts(tx, row)
        async with self._parts.database.write() as tx:
            return await gathering.take(tx, row, came, doubt, since=since, until=until)

    async def _prune(self, now: datetime) -> None:
        if self._pruned is not None and now - self._pruned < PRUNE_EVERY:
            return
        self._pruned = now
        kept = timedelta(days=self._parts.settings.gates.verdict_retention_days)
        async with self._parts.database.write() as tx:
            removed = await gates.prune(tx, verdicts_before=now - kept, ended_before=now - KEEP_HABITS)
        if removed:
            logger.info("old verdicts and habits removed rows=%d", removed)
