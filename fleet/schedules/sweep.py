"""Retire old releases: say so durably, then delete their chunks. Manifests and signed documents stay.

A release is retired in a transaction that looks again whether anything needs it; a rollout that starts meanwhile
waits for that transaction, or is seen by it. A crash before the last chunk is gone is made good by the next sweep.

I/O: disk, tasks.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol

from fleet.access.roles import Actor, system
from fleet.driver_parts import DriverParts
from fleet.releases import leftovers
from fleet.releases.depot import Depot
from fleet.schedules import retention
from fleet.schedules.needs import Needs, needs
from fleet.schedules.retention import Kept, Verdict
from fleet.store import audit, events, releases
from fleet.store.tables import Release
from shared.errors import BadInputError, FlotillaError
from shared.manifest import Manifest

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 3600.0
RETIRED: Final = "retired"


class Parts(DriverParts, Protocol):
    """What it needs of `fleet.daemon.Manager`."""

    @property
    def depot(self) -> Depot: ...


class Sweep:
    """Once an hour, where `versioning.cleanup_old_versions` says so; and whenever a person asks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.tidy()
            await asyncio.sleep(EVERY_SECONDS)

    async def tidy(self) -> None:
        """What is due every hour. What cannot be done now waits for the next one."""
        try:
            await self.finish()
            if self._parts.settings.versioning.cleanup_old_versions:
                await self.sweep(system("cleanup"))
        except (FlotillaError, OSError) as error:
            logger.warning("cleanup waits for the next hour error=%s", error)

    async def plan(self) -> Sequence[Verdict]:
        """What a sweep would retire now, and why the others stay."""
        async with self._parts.database.read() as tx:
            held = await needs(tx)
            rows = [row for row in await releases.every(tx) if row.state != RETIRED]
        return self._verdicts(rows, held)

    async def sweep(self, actor: Actor) -> Sequence[Verdict]:
        """Retire what nothing needs; the verdicts on all releases. A second call finds nothing more."""
        found = [one for one in await self.plan() if one.goes]
        retired = [one for one in found if await self._retire(one, actor)]
        if retired:
            self._parts.hub.wake()
        await self.finish()
        return [*retired, *(one for one in await self.plan() if not one.goes)]

    async def finish(self) -> int:
        """Delete the chunks of retired releases that are still here, how many there were; and of uploads given up."""
        async with self._parts.database.read() as tx:
            rows = await releases.every(tx)
            roles = {role: row.data for role, row in (await releases.newest_documents(tx)).items()}
        deleted = await asyncio.to_thread(self._delete, rows)
        await asyncio.to_thread(self._abandoned, rows, roles)
        return deleted

    def _verdicts(self, rows: Sequence[Release], held: Needs) -> Sequence[Verdict]:
        keep = timedelta(days=self._parts.settings.versioning.version_retention_days)
        known = [
            Kept(row.model, row.version, row.counter, row.published_at, held.get((row.model, row.version), ()))
            for row in rows
        ]
        return retention.verdicts(known, self._parts.clock.now(), keep)

    async def _retire(self, one: Verdict, actor: Actor) -> bool:
        """True if it is retired; False if something needs it by now."""
        now = self._parts.clock.now()
        async with self._parts.database.write() as tx:
            row = await tx.get(Release, (one.model, one.version), with_for_update=True)
            if row is None or row.state == RETIRED or (one.model, one.version) in await needs(tx):
                return False
            row.state = RETIRED
            subject = f"{one.model}@{one.version}"
            text = f"{subject} retired: {one.why}; its chunks are deleted"
            await events.add(tx, kind="release", level="info", subject=subject, text=text, now=now)
            said = {"why": one.why, "chunks": len(_chunks(row))}
            await audit.record(tx, actor=actor, action="model.retire", subject=subject, body=said, now=now)
        return True

    def _delete(self, rows: Sequence[Release]) -> int:
        wanted = {name for row in rows if row.state != RETIRED for name in _chunks(row)}
        gone = {name for row in rows if row.state == RETIRED for name in _chunks(row)} - wanted
        return sum(self._parts.depot.remove(name) for name in sorted(gone))

    def _abandoned(self, rows: Sequence[Release], roles: Mapping[str, bytes]) -> None:
        live = [row.manifest for row in rows if row.state != RETIRED]
        signed = {role: data for role, data in roles.items() if role.startswith("model-")}
        if found := leftovers.clear(self._parts.depot, live, signed, self._parts.clock.now()):
            logger.info("abandoned chunks deleted number=%d", found)


def _chunks(row: Release) -> Sequence[str]:
    try:
        artifacts = Manifest.parse(row.manifest).artifacts.values()
    except BadInputError:
        return ()  # no manifest of ours: nothing is known to be its chunk
    return [chunk.id for artifact in artifacts for chunk in artifact.chunks]
