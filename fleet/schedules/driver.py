"""Make what is due into rollouts, once each, and follow them to their end.

Whatever a step decides is saved with the rollout that it makes in one transaction; a manager that was away looks
at what became due meanwhile. Several managers may look at the same schedule: its row is locked while one decides.

I/O: tasks.
"""

import asyncio
import logging
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.roles import system
from fleet.alerts import desk
from fleet.driver_parts import DriverParts
from fleet.rollouts import plan, targeting
from fleet.rollouts.errors import AlreadyThereError, NoDevicesError, OverlapError
from fleet.schedules import engine, making, strategy, waits
from fleet.schedules.engine import Step
from fleet.schedules.precedence import rank
from fleet.schedules.states import LIVE, Schedule, State, from_json
from fleet.settings import FleetSettings
from fleet.store import audit, rollouts, schedules, tables
from shared.errors import FlotillaError, RefusedError
from shared.windows import Hours, Window, is_open

logger = logging.getLogger(__name__)

#: Without news, schedules are looked at this often; what waits in the queue is tried again as often.
IDLE_SECONDS: Final = 5.0
#: With news, never more often than this.
REST_SECONDS: Final = 0.5


class ScheduleDriver:
    """Moves every schedule on. One per manager."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        self._waits = waits.WaitWatch(parts)

    async def run(self) -> None:
        """Until cancelled: look whenever something was committed, and every few seconds."""
        seen = -1
        while True:
            try:
                await self.advance()
            except FlotillaError as error:
                logger.warning("schedules stand still error=%s detail=%s", error.code, error.detail)
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, await self._idle_seconds())

    async def advance(self) -> None:
        """One look at every schedule, those of high priority first; at devices that wait for windows, too."""
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            live = [from_json(row.body) for row in await schedules.in_states(tx, [state.value for state in LIVE])]
            wanted = [one for one in live if await _concerns(tx, one, now)]
        for schedule in sorted(wanted, key=lambda one: (-rank(one.priority), one.due)):
            await self._step(schedule.id, now)
        await self._waits.look(now)

    async def _idle_seconds(self) -> float:
        """Until the next time, and not for longer than usual."""
        async with self._parts.database.read() as tx:
            waiting = [from_json(row.body).due for row in await schedules.in_states(tx, [State.WAITING.value])]
        left = (min(waiting) - self._parts.clock.now()).total_seconds() if waiting else IDLE_SECONDS
        return min(IDLE_SECONDS, max(left, REST_SECONDS))

    async def _step(self, schedule_id: str, now: datetime) -> None:
        async with self._parts.database.write() as tx:
            row = await schedules.get(tx, schedule_id, lock=True)
            if row is None:
                return
            before = from_json(row.body)
            step = await self._decided(tx, before, row.created_by, now)
            if step.schedule == before:
                return
            await making.save(tx, row, step, now)
            await self._alarm(tx, step, now)
        self._parts.hub.wake()

    async def _decided(self, tx: AsyncSession, schedule: Schedule, by: str, now: datetime) -> Step:
        if schedule.state is State.RUNNING:
            row = await rollouts.get(tx, schedule.rollout or "")
            return engine.ended(schedule, row.state, row.reason, now) if row is not None else Step(schedule)
        first = engine.due(schedule, now, window_open=self._window_open(schedule, now))
        if first.schedule.state is not State.QUEUED:
            return first
        return await self._begun(tx, first.schedule, by, now)

    async def _begun(self, tx: AsyncSession, schedule: Schedule, by: str, now: datetime) -> Step:
        """Its rollout, or why there is none."""
        settings = self._parts.settings
        try:
            request = await making.request_of(tx, schedule)
            if schedule.kind == "auto":
                request = await _with_strategy(tx, request, settings)
            seed = f"{schedule.id} {schedule.due.isoformat()}"
            made = await plan.make(tx, request, settings, now, by=by, seed=seed)  # whose it is may not approve it
        except OverlapError as error:
            return engine.hindered(schedule, error.detail, now)
        except AlreadyThereError as error:
            return engine.nothing_to_do(schedule, error.detail, now)
        except NoDevicesError as error:
            if schedule.kind == "auto":
                return engine.nothing_to_do(schedule, "no device follows it", now)
            return engine.impossible(schedule, error.detail, now)
        except RefusedError as error:
            return engine.impossible(schedule, error.detail, now)
        rollout = await plan.start(tx, made, by=f"{by[:100]} ({schedule.id})", now=now)
        said = request.model_dump(mode="json", exclude_none=True) | {"schedule": schedule.id}
        await audit.record(
            tx, actor=system("schedules"), action="rollout.start", subject=rollout.id, body=said, now=now
        )
        return engine.started(schedule, rollout.id, rollout.version, now)

    def _window_open(self, schedule: Schedule, now: datetime) -> bool:
        settings = self._parts.settings.scheduling
        said = schedule.request.get("window")
        if said is None:
            return False
        hours = settings.hours if said == "settings" else Hours.model_validate(said)
        return is_open(Window(**hours.model_dump(), zone=settings.timezone), now)

    async def _alarm(self, tx: AsyncSession, step: Step, now: datetime) -> None:
        schedule = step.schedule
        for note in step.notes:
            if note.alarm:
                await desk.open_alert(
                    tx,
                    kind="rollout",
                    scope="fleet",
                    subject=f"{schedule.id} {schedule.release}",
                    severity="medium",
                    text=f"schedule {schedule.id} of {schedule.release} {note.text}",
                    body={"schedule": schedule.id, "model": schedule.model, "state": schedule.state.value},
                    now=now,
                )


async def _concerns(tx: AsyncSession, schedule: Schedule, now: datetime) -> bool:
    """Something may happen to it now."""
    if schedule.state is State.RUNNING:
        row = await rollouts.get(tx, schedule.rollout or "")
        return row is not None and row.state not in rollouts.ACTIVE
    return schedule.state is State.QUEUED or schedule.due <= now


async def _with_strategy(tx: AsyncSession, request: plan.Request, settings: FleetSettings) -> plan.Request:
    devices: list[tables.Device] = [
        device
        for device in await targeting.devices(tx, plan.target(request.target), request.model)
        if device.serving.get(request.model) != request.version
    ]
    said = request.model_dump(exclude_none=True) | dict(strategy.fields(settings.scheduling, len(devices)))
    return plan.Request.model_validate(said)
