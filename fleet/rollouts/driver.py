"""The shell of the engine: load, step, save with what is owed in one transaction, then perform what is owed.

A crash between any two lines is harmless: decisions and debts are saved together, a debt is paid together with
the new assignment in one transaction, and an announcement that was not published is published at the next start.

I/O: tasks.
"""

import asyncio
import logging
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.devices import assigning
from fleet.devices.announcer import Announcer
from fleet.hub import Hub
from fleet.releases.director import Director
from fleet.rollouts import engine
from fleet.rollouts.changing import change, loaded
from fleet.rollouts.states import QUEUED
from fleet.schedules import turns
from fleet.settings import FleetSettings
from fleet.store import rollouts as store
from fleet.store import tables
from fleet.store.database import Database
from shared.clock import Clock
from shared.errors import FlotillaError, RefusedError
from shared.messages import Phase

logger = logging.getLogger(__name__)

#: Without news, deadlines and bakes are looked at this often.
IDLE_SECONDS: Final = 1.0
#: With news, never more often than this.
REST_SECONDS: Final = 0.1


class Parts(Protocol):
    """What the driver needs of `fleet.daemon.Manager`."""

    @property
    def settings(self) -> FleetSettings: ...
    @property
    def database(self) -> Database: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def hub(self) -> Hub: ...
    @property
    def director(self) -> Director: ...
    @property
    def announcer(self) -> Announcer: ...


class RolloutDriver:
    """Moves every rollout on. One per manager."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Until cancelled: look whenever something was committed, and once a second."""
        seen = -1
        while True:
            try:
                await self.advance()
            except FlotillaError as error:
                logger.warning("rollouts stand still error=%s detail=%s", error.code, error.detail)
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, IDLE_SECONDS)

    async def advance(self) -> None:
        """One look at every rollout; what becomes owed is performed before it returns."""
        await self.perform()
        async with self._parts.database.read() as tx:
            ids = [row.id for row in await store.active(tx)]
        for rollout_id in ids:
            await self._step(rollout_id)
        await self.perform()

    async def _step(self, rollout_id: str) -> None:
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            row = await store.get(tx, rollout_id)
            if row is None:
                return
            rollout, evidence = await loaded(tx, row, now)
            if engine.step(rollout, evidence, now) == engine.Step(rollout):
                return
        async with self._parts.database.write() as tx:  # again, on what is true while we hold the pen
            await change(tx, rollout_id, engine.step, now, alarm=True)
        self._parts.hub.wake()

    async def perform(self) -> None:
        """Pay every debt: a new assignment for the device, then its announcement."""
        while await self._in_debt():
            async with self._parts.database.write() as tx:
                debts = await store.owed(tx, limit=50)
                told = [debt.device_id for debt in debts if await self._pay(tx, debt)]
            for device in dict.fromkeys(told):
                await self._announce(device)
            self._parts.hub.wake()

    async def _in_debt(self) -> bool:
        async with self._parts.database.read() as tx:
            return bool(await store.owed(tx, limit=1))

    async def _pay(self, tx: AsyncSession, debt: tables.OwedAction) -> bool:
        """The new assignment, in the transaction that marks the debt as paid; False when it became pointless."""
        now = self._parts.clock.now()
        debt.performed_at = now
        device = await tx.get(tables.Device, debt.device_id)
        deployment = await tx.get(tables.Deployment, (debt.rollout_id, debt.device_id))
        release = await tx.get(tables.Release, (debt.model, debt.version))
        if device is None or deployment is None or release is None or device.lifecycle != "active":
            return False
        if debt.kind == "announce" and deployment.recalled_at is not None:
            return False
        if debt.kind == "announce":
            serving = device.serving.get(debt.model)
            deployment.previous = serving if serving != debt.version else deployment.previous
        try:
            version = await assigning.assign(
                tx,
                self._parts.director,
                device,
                release,
                rollout=debt.rollout_id,
                terms=await turns.terms(tx, debt, device, self._parts.settings.versioning.max_versions_per_device),
                now=now,
            )
        except RefusedError as error:  # no second try can succeed; the other rollouts must not wait for this one
            deployment.state, deployment.since = str(Phase.FAILED), now
            deployment.reason, deployment.detail = error.code, error.detail
            return False
        deployment.assignment, deployment.state, deployment.since = version, QUEUED, now
        deployment.reason = deployment.detail = deployment.fetched_bytes = deployment.total_bytes = None
        return True

    async def _announce(self, device: str) -> None:
        try:
            await self._parts.announcer.announce(device)
        except FlotillaError as error:  # the assignment is stored: it is announced when the link is back
            logger.info("announcement waits device=%s error=%s", device, error.code)
