"""One schedule, one step: is it due, was it missed, how did its rollout end. Stepping twice is harmless.

I/O: none.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from fleet.rollouts.states import State as RolloutState
from fleet.schedules import calendar
from fleet.schedules.errors import ScheduleStateError
from fleet.schedules.states import Event, Schedule, State
from shared.clock import rfc3339


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the timeline; `alarm`: it needs a person."""

    level: Literal["ok", "info", "warn", "crit"]
    text: str
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The schedule after the step, and what is to be told."""

    schedule: Schedule
    notes: tuple[Note, ...] = ()


def due(schedule: Schedule, now: datetime, *, window_open: bool) -> Step:
    """Its time came: it is queued; or it came while nobody was there, too long ago: skipped, and told.

    Late is not too late within the grace, and while the window that it is meant for is open.
    """
    if schedule.state is not State.WAITING or now < schedule.due:
        return Step(schedule)
    late = now - schedule.due
    if late <= timedelta(seconds=schedule.grace_seconds) or window_open:
        return Step(schedule.moved(Event.DUE, now))
    minutes = late.total_seconds() / 60
    text = f"missed its time {rfc3339(schedule.due)} by {minutes:.0f} min: the manager was away, or it was paused"
    if schedule.cron is None:
        return Step(schedule.moved(Event.MISS, now, text), (Note("crit", text, alarm=True),))
    skipped = _again(schedule, now, text)
    return Step(skipped, (Note("warn", f"{text}; next {rfc3339(skipped.due)}", alarm=True),))


def hindered(schedule: Schedule, why: str, now: datetime) -> Step:  # noqa: ARG001  # like the others
    """It is due, and must wait. Said once for each reason."""
    if schedule.reason == why:
        return Step(schedule)
    return Step(replace(schedule, reason=why), (Note("warn", f"waits: {why}"),))


def started(schedule: Schedule, rollout: str, version: str, now: datetime) -> Step:
    """Its rollout is made, in the same transaction."""
    made = replace(schedule.moved(Event.START, now), rollout=rollout, runs=schedule.runs + 1)
    return Step(made, (Note("info", f"started {rollout}: {schedule.model} {version}"),))


def nothing_to_do(schedule: Schedule, why: str, now: datetime) -> Step:
    """All devices have it already."""
    done = schedule.moved(Event.FINISH, now, why) if schedule.cron is None else _again(schedule, now, why)
    return Step(done, (Note("ok", f"nothing to do: {why}"),))


def impossible(schedule: Schedule, why: str, now: datetime) -> Step:
    """Its rollout cannot be made."""
    failed = schedule.moved(Event.FAIL, now, why) if schedule.cron is None else _again(schedule, now, why)
    return Step(failed, (Note("crit", f"could not start: {why}", alarm=True),))


def ended(schedule: Schedule, state: str, reason: str | None, now: datetime) -> Step:
    """What its rollout, which is in `state`, means for it. An alert of the rollout itself is there already."""
    over = {RolloutState.COMPLETED: True, RolloutState.ABORTED: False, RolloutState.ROLLED_BACK: False,
            RolloutState.FAILED: False}.get(RolloutState(state))  # fmt: skip
    if schedule.state is not State.RUNNING or over is None:
        return Step(schedule)
    said = f"{schedule.rollout} {state}" + (f": {reason}" if reason else "")
    note = Note("ok" if over else "warn", said)
    if schedule.cron is not None:
        return Step(_again(schedule, now, said), (note,))
    return Step(schedule.moved(Event.FINISH if over else Event.FAIL, now, None if over else said), (note,))


def paused(schedule: Schedule, now: datetime, by: str) -> Step:
    """It does not become due until `resumed`.

    Raises:
        ScheduleStateError: its rollout runs, or it is over.
    """
    if schedule.state is State.RUNNING:
        raise ScheduleStateError(
            f"{schedule.id} has started {schedule.rollout}", remedy=f"flotilla rollout pause {schedule.rollout}"
        )
    return Step(schedule.moved(Event.PAUSE, now, f"paused by {by}"), (Note("warn", f"paused by {by}"),))


def resumed(schedule: Schedule, now: datetime, by: str) -> Step:
    """It waits for its time again; a time that passed meanwhile counts as missed beyond the grace.

    Raises:
        ScheduleStateError: it is not paused.
    """
    back = schedule.moved(Event.RESUME, now)
    if back.cron is not None and back.due < now:
        back = replace(back, due=calendar.following(back.cron, back.zone, now))
    return Step(back, (Note("info", f"resumed by {by}"),))


def cancelled(schedule: Schedule, now: datetime, because: str) -> Step:
    """It never becomes due again. A rollout that it made goes on.

    Raises:
        ScheduleStateError: it is over, or all that is left of it is its rollout.
    """
    if schedule.state is State.RUNNING and schedule.cron is None:
        raise ScheduleStateError(
            f"{schedule.id} has started {schedule.rollout} already",
            remedy=f"flotilla rollout abort {schedule.rollout}",
        )
    return Step(schedule.moved(Event.CANCEL, now, because), (Note("warn", f"cancelled: {because}"),))


def _again(schedule: Schedule, now: datetime, reason: str) -> Schedule:
    following = calendar.following(schedule.cron or "", schedule.zone, max(now, schedule.due))
    return replace(schedule.moved(Event.AGAIN, now, reason), due=following)
