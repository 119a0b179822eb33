"""From what a person asks to a stored schedule, and from a schedule that is due to its rollout.

I/O: none.
"""

import hashlib
from datetime import datetime
from itertools import count
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import plan, standing
from fleet.rollouts.errors import ReleaseNotFoundError
from fleet.schedules import calendar
from fleet.schedules.engine import Step
from fleet.schedules.errors import ScheduleTimeError
from fleet.schedules.states import Schedule, State, to_json
from fleet.settings import FleetSettings
from fleet.store import events, releases, tables
from fleet.store import schedules as store
from shared.identifiers import VERSION_PATTERN
from shared.windows import Hours, ZoneName, check_zone

_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_ALIAS_PATTERN: Final = r"[a-z][a-z0-9-]{0,31}"
#: A version, or an alias that is looked up when the schedule is due.
VersionOrAlias = Annotated[
    str, StringConstraints(pattern=rf"(?:{VERSION_PATTERN})|(?:^{_ALIAS_PATTERN}$)", max_length=64)
]


class NewSchedule(plan.Request):
    """`POST /schedules`: a rollout, and when. Scheduled work keeps to the maintenance window unless it says not to."""

    version: VersionOrAlias
    window: Literal["settings"] | Hours | None = "settings"
    at: datetime | None = None  # without a zone of its own: wall time of `zone`
    cron: Annotated[str, Field(max_length=100)] | None = None
    zone: ZoneName | None = None  # None: that of the settings

    @model_validator(mode="after")
    def _one_time(self) -> "NewSchedule":
        if (self.at is None) == (self.cron is None):
            raise ValueError("give either `at` or `cron`")
        return self

    def rollout(self) -> dict[str, Any]:
        """What its rollout is asked with, save for model and version."""
        own = set(plan.Request.model_fields) - {"model", "version"}
        return self.model_dump(mode="json", include=own, exclude_none=True)


async def planned(tx: AsyncSession, asked: NewSchedule, settings: FleetSettings, *, by: str, now: datetime) -> Schedule:
    """The schedule that `asked` describes; nothing is stored.

    Raises:
        ScheduleTimeError, ZoneError: a time that is none, or over.
        ReleaseNotFoundError: neither a version nor an alias of the model.
        WithdrawnError: nobody may get it any more.
    """
    zone = check_zone(asked.zone or settings.scheduling.timezone)
    due = _due(asked, zone, now)
    version = await version_of(tx, asked.model, asked.version)
    release = await releases.find(tx, asked.model, version) if version is not None else None
    if release is None:
        raise ReleaseNotFoundError(f"{asked.model}@{asked.version} is neither a version nor an alias")
    standing.check(release)
    return Schedule(
        id=await _free_id(tx, (asked.model, asked.version, by, now.isoformat())),
        kind="once" if asked.cron is None else "cron",
        model=asked.model,
        version=asked.version,
        since=now,
        due=due,
        zone=zone,
        cron=asked.cron,
        request=asked.rollout(),
        priority=asked.priority,
        grace_seconds=settings.scheduling.misfire_grace_minutes * 60,
    )


def _due(asked: NewSchedule, zone: str, now: datetime) -> datetime:
    if asked.cron is not None:
        return calendar.following(asked.cron, zone, now)
    if asked.at is None:
        raise RuntimeError("a schedule without a time")
    due = calendar.instant(asked.at, zone)
    if due < now:
        raise ScheduleTimeError(f"{asked.at.isoformat()} ({zone}) is over")
    return due


async def automatic(
    tx: AsyncSession, model: str, version: str, request: dict[str, Any], settings: FleetSettings, now: datetime
) -> Schedule:
    """The schedule by which the move of an alias reaches its devices: due at once."""
    return Schedule(
        id=await _free_id(tx, (model, version, "auto", now.isoformat())),
        kind="auto",
        model=model,
        version=version,
        since=now,
        due=now,
        zone=settings.scheduling.timezone,
        request=request,
        grace_seconds=settings.scheduling.misfire_grace_minutes * 60,
    )


async def add(tx: AsyncSession, schedule: Schedule, *, by: str, now: datetime) -> None:
    """Store a new one."""
    tx.add(
        tables.Schedule(
            id=schedule.id,
            model=schedule.model,
            state=schedule.state.value,
            body=to_json(schedule),
            rollout_id=None,
            created_by=by[:128],
            created_at=now,
            updated_at=now,
        )
    )
    await tx.flush()


async def save(tx: AsyncSession, row: tables.Schedule, step: Step, now: datetime) -> None:
    """The schedule after a step, with its lines in the feed."""
    after = step.schedule
    row.body, row.state, row.rollout_id, row.updated_at = to_json(after), after.state.value, after.rollout, now
    for note in step.notes:
        await events.add(
            tx,
            kind="schedule",
            level=note.level,
            subject=after.id,
            rollout_id=after.rollout if after.state is State.RUNNING else None,
            text=f"{after.id} {after.release}: {note.text}",
            now=now,
        )


async def request_of(tx: AsyncSession, schedule: Schedule) -> plan.Request:
    """What to ask of `rollouts.plan` now that the schedule is due.

    Raises:
        ReleaseNotFoundError: its alias is gone.
    """
    version = await version_of(tx, schedule.model, schedule.version)
    if version is None:
        raise ReleaseNotFoundError(f"{schedule.release} is neither a version nor an alias any more")
    return plan.Request.model_validate({**schedule.request, "model": schedule.model, "version": version})


async def version_of(tx: AsyncSession, model: str, said: str) -> str | None:
    """The published version that `said`, a version or an alias, stands for; None when it is neither."""
    alias = await store.alias(tx, model, said)
    version = alias.version if alias is not None else said
    return version if await releases.find(tx, model, version) is not None else None


async def _free_id(tx: AsyncSession, said: tuple[str, ...]) -> str:
    """Short, and the same for the same words."""
    for attempt in count():
        digest = hashlib.sha256("\0".join((*said, str(attempt))).encode()).digest()
        found = "sc-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:5])
        if await store.get(tx, found) is None:
            return found
    raise AssertionError
