"""The shell of the engine: load, step, save with what is owed in one transaction, then perform what is owed.

A crash between any two lines is harmless: decisions and debts are saved together, a debt is paid together with
the new assignment in one transaction, and an announcement that was not published is published at the next start.

I/O: tasks.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.devices import assigning
from fleet.devices.announcer import Announcer
from fleet.driver_parts import DriverParts
from fleet.releases.director import Director
from fleet.rollouts import engine, saved, targeting, verdicts
from fleet.rollouts.changing import change, loaded
from fleet.rollouts.roster import Roster
from fleet.rollouts.states import QUEUED
from fleet.schedules import turns
from fleet.store import rollouts as store
from fleet.store import tables
from shared.errors import FlotillaError, RefusedError
from shared.messages import Phase

logger = logging.getLogger(__name__)

#: Without news, deadlines and bakes are looked at this often.
IDLE_SECONDS: Final = 1.0
#: With news, never more often than this.
REST_SECONDS: Final = 0.1
#: Devices that came into a target are looked for this often.
JOIN_SECONDS: Final = 10.0
#: Kinds of debts of the way back.
_BACK: Final = frozenset({"recall", "call-off"})
_ACTIVATE: Final[Mapping[str, assigning.Activate]] = {"stage": "later", "call-off": "never"}


class Parts(DriverParts, Protocol):
    """What the driver needs of `fleet.daemon.Manager`."""

    @property
    def director(self) -> Director: ...
    @property
    def announcer(self) -> Announcer: ...


class RolloutDriver:
    """Moves every rollout on. One per manager. `checkpoint` hears the name of each thing done, for tests that kill."""

    def __init__(self, parts: Parts, *, checkpoint: Callable[[str], None] = lambda _: None) -> None:
        self._parts, self._checkpoint = parts, checkpoint
        self._joined_at: float | None = None
        self._roster = Roster()

    async def run(self) -> None:
        """Until cancelled: look whenever something was committed, and once a second."""
        seen = -1
        while True:
            began = self._parts.clock.monotonic()
            try:
                await self.advance()
            except FlotillaError as error:
                logger.warning("rollouts stand still error=%s detail=%s", error.code, error.detail)
            took = self._parts.clock.monotonic() - began
            await asyncio.sleep(max(REST_SECONDS, took))  # a large fleet leaves half of the time to others
            seen = await self._parts.hub.wait(seen, IDLE_SECONDS)

    async def advance(self) -> None:
        """One look at every rollout; what becomes owed is performed before it returns."""
        await self.perform()
        async with self._parts.database.read() as tx:
            ids = [row.id for row in await store.active(tx)]
        self._roster.keep(ids)
        await self._join(ids)
        for rollout_id in ids:
            await self._step(rollout_id)
        await self.perform()

    async def _join(self, rollout_ids: Sequence[str]) -> None:
        moment = self._parts.clock.monotonic()
        if self._joined_at is not None and moment - self._joined_at < JOIN_SECONDS:
            return
        self._joined_at = moment
        for rollout_id in rollout_ids:
            async with self._parts.database.read() as tx:
                if not (await targeting.newcomers(tx, rollout_id))[1]:
                    continue
            async with self._parts.database.write() as tx:
                await targeting.join(tx, rollout_id, self._parts.clock.now())
            self._checkpoint("joined")

    async def _step(self, rollout_id: str) -> None:
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            row = await store.get(tx, rollout_id)
            if row is None:
                return
            rollout, evidence = await loaded(tx, row, now, self._roster)
            step = engine.step(rollout, evidence, now)
            if step == engine.Step(rollout) and await verdicts.pending(tx, rollout, step.numbers) is None:
                return
        async with self._parts.database.write() as tx:  # again, on what is true while we hold the pen
            await change(tx, rollout_id, engine.step, now, alarm=True, roster=self._roster)
        self._checkpoint("saved")
        self._parts.hub.wake()

    async def perform(self) -> None:
        """Pay every debt: a new assignment for the device, then its announcement."""
        while await self._in_debt():
            async with self._parts.database.write() as tx:
                debts = await store.owed(tx, limit=50)
                told = [debt.device_id for debt in debts if await self._pay(tx, debt)]
                self._checkpoint("paying")
            self._checkpoint("paid")
            for device in dict.fromkeys(told):
                await self._announce(device)
                self._checkpoint("announced")
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
        if debt.kind not in _BACK and deployment.recalled_at is not None:
            return False
        if debt.kind in ("announce", "stage"):
            serving = device.serving.get(debt.model)
            deployment.previous = serving if serving != debt.version else deployment.previous
        order = assigning.Order(
            debt.rollout_id,
            activate=_ACTIVATE.get(debt.kind, "now"),
            force=await self._forced(tx, debt),
            terms=await turns.terms(tx, debt, device, self._parts.settings.versioning.max_versions_per_device),
        )
        try:
            version = await assigning.assign(tx, self._parts.director, device, release, order, now=now)
        except RefusedError as error:  # no second try can succeed; the other rollouts must not wait for this one
            deployment.state, deployment.since = str(Phase.FAILED), now
            deployment.reason, deployment.detail = error.code, error.detail
            return False
        deployment.assignment = version
        deployment.reason = deployment.detail = None
        if debt.kind != "switch":  # that one goes on where it is
            deployment.state, deployment.since = QUEUED, now
            deployment.fetched_bytes = deployment.total_bytes = deployment.sources = None
        return True

    async def _forced(self, tx: AsyncSession, debt: tables.OwedAction) -> bool:
        row = await store.get(tx, debt.rollout_id)
        return debt.kind not in _BACK and row is not None and saved.from_json(row.body).force

    async def _announce(self, device: str) -> None:
        try:
            await self._parts.announcer.announce(device)
        except FlotillaError as error:  # the assignment is stored: it is announced when the link is back
            logger.info("announcement waits device=%s error=%s", device, error.code)
