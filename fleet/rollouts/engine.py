"""One rollout, one step: (rollout, evidence, now) -> rollout, actions, notes. Stepping twice is harmless.

`apply` tells what actions mean for the evidence; the driver does the same to the rows, in the transaction
that saves the step.

I/O: none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from fleet.rollouts.gate import Check, Result, judge, worst
from fleet.rollouts.states import (
    ENDED,
    QUEUED,
    TERMINAL,
    TIMED_OUT,
    Event,
    Evidence,
    Member,
    Rollout,
    State,
    advance,
)
from shared.messages import Phase

#: Reasons that the manager itself gives for the end of a device's way.
E_SILENT: Final = "E_SILENT"  # nothing was heard since the announcement
E_TIMEOUT: Final = "E_TIMEOUT"  # it began, and did not finish in time
E_ROLLOUT_STOPPED: Final = "E_ROLLOUT_STOPPED"  # never told, because the rollout ended first
E_DEVICE_REVOKED: Final = "E_DEVICE_REVOKED"


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the device to go to the release."""

    device: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Tell the device to go back to `version`."""

    device: str
    version: str


@dataclass(frozen=True, slots=True)
class Close:
    """The device's way ends here, as `state`, for `reason`. Nothing is sent."""

    device: str
    state: Literal["timed-out", "cancelled"]
    reason: str
    detail: str


Action: TypeAlias = Announce | Recall | Close


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the timeline."""

    level: Literal["ok", "info", "warn", "crit"]
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """The rollout after the step, and what it owes."""

    rollout: Rollout
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()


def step(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    """Decide the next move from what the fleet knows at `now`. Stepping twice is harmless."""
    match rollout.state:
        case State.RUNNING | State.PAUSED:
            return _forward(rollout, evidence, now)
        case State.ABORTING | State.ROLLING_BACK:
            return _wind_down(rollout, evidence, now)
        case State.COMPLETED | State.ABORTED | State.ROLLED_BACK | State.FAILED:
            return Step(rollout)


def abort(rollout: Rollout, evidence: Evidence, now: datetime, *, reason: str, back: bool) -> Step:
    """Stop: no further device is told; with `back`, those that were told go back, the canary first.

    Also brings a completed or aborted rollout back. A device without a version before keeps what it has.

    Raises:
        RolloutStateError: it is already on its way back, or there.
    """
    never = [
        Close(member.device, "cancelled", E_ROLLOUT_STOPPED, "the rollout ended before its turn")
        for member in evidence.members
        if not member.touched and member.state == QUEUED
    ]
    recalls = [
        Recall(member.device, member.previous)
        for member in sorted(evidence.members, key=lambda member: member.wave)
        if back and member.touched and member.recalled_at is None and member.previous is not None
    ]
    actions: tuple[Action, ...] = (*recalls, *never)
    stopped = rollout.moved(Event.RECALL if back else Event.STOP, now, reason)
    notes = (Note("crit" if back else "warn", f"Stopped: {reason}"), Note("info", _effect(recalls, never, back)))
    after = _wind_down(stopped, apply(evidence, actions, now), now)
    return Step(after.rollout, (*actions, *after.actions), (*notes, *after.notes))


def _effect(recalls: Sequence[Recall], never: Sequence[Close], back: bool) -> str:
    if not back:
        return f"Devices that have the release keep it; {len(never)} were never told"
    versions = ", ".join(sorted({recall.version for recall in recalls})) or "the version before"
    return f"{len(recalls)} devices go back to {versions}; {len(never)} were never told"


def apply(evidence: Evidence, actions: Iterable[Action], now: datetime) -> Evidence:
    """The evidence as it is once `actions` are saved."""
    members = {member.device: member for member in evidence.members}
    for action in actions:
        members[action.device] = applied(members[action.device], action, now)
    return replace(evidence, members=tuple(members.values()))


def applied(member: Member, action: Action, now: datetime) -> Member:
    """The member after one action."""
    match action:
        case Announce():
            return replace(member, told_at=now, owed=True, since=now)
        case Recall():
            kept = replace(
                member,
                outcome=member.state,
                outcome_reason=member.reason,
                outcome_detail=member.detail,
                recalled_at=now,
            )
            return replace(kept, state=QUEUED, reason=None, detail=None, owed=True, since=now)
        case Close(state=state, reason=reason, detail=detail):
            return replace(member, state=state, reason=reason, detail=detail, since=now)


# --- on the way forward -------------------------------------------------------------------------------------


def _forward(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    closing = tuple(_overdue(rollout, evidence.members, now))
    evidence = apply(evidence, closing, now)
    notes = tuple(Note("warn", f"{close.device}: {close.detail}") for close in closing)
    checks = judge(rollout, evidence, now)
    if bad := next((check for check in checks if check.result is Result.FAIL), None):
        return _after(closing, notes, abort(rollout, evidence, now, reason=bad.detail, back=rollout.auto_rollback))
    if rollout.state is State.PAUSED:
        return Step(rollout, closing, notes)
    grown = _grow(rollout, evidence, checks, now)
    telling = tuple(_tell(grown.rollout, evidence)) if grown.rollout.state is State.RUNNING else ()
    return _after(closing, notes, Step(grown.rollout, telling, grown.notes))


def _after(actions: Iterable[Action], notes: Iterable[Note], then: Step) -> Step:
    return Step(then.rollout, (*actions, *then.actions), (*notes, *then.notes))


def _grow(rollout: Rollout, evidence: Evidence, checks: Sequence[Check], now: datetime) -> Step:
    """Release the next wave, begin or end a bake, complete; at most one of them, save for waves of nobody."""
    if rollout.wave < 0:
        return _release(rollout)
    if not all(member.ended for member in evidence.released(rollout.wave)):
        return Step(rollout)
    name = rollout.waves[rollout.wave].name
    notes: tuple[Note, ...] = ()
    if rollout.baking_since is None:
        rollout = replace(rollout, baking_since=now)
        if rollout.bakes_at_all and not rollout.promoted:
            notes = (Note("info", f"{name}: every device has ended, watching for {rollout.bake_seconds:g} s"),)
    if not rollout.promoted and not _baked(rollout, checks, now):
        return Step(rollout, notes=notes)
    if rollout.in_last_wave:
        done = sum(member.forward == Phase.COMMITTED for member in evidence.members)
        note = Note("ok", f"Completed: {done} of {len(evidence.members)} devices on {rollout.version}")
        return Step(replace(rollout.moved(Event.FINISH, now), promoted=False), notes=(*notes, note))
    released = _release(rollout)
    return Step(released.rollout, notes=(*notes, Note("ok", f"{name}: all gates passed"), *released.notes))


def _baked(rollout: Rollout, checks: Sequence[Check], now: datetime) -> bool:
    left = rollout.bake_left(now)
    if left is not None and left > timedelta(0):
        return False
    return not (rollout.limits.require_evidence and worst(checks) is Result.WAIT)


def _release(rollout: Rollout) -> Step:
    grown = replace(rollout, wave=rollout.wave + 1, baking_since=None, promoted=False)
    wave = grown.waves[grown.wave]
    devices = "1 device" if wave.size == 1 else f"{wave.size} devices"
    return Step(grown, notes=(Note("info", f"{wave.name} released: {devices}"),))


def _tell(rollout: Rollout, evidence: Evidence) -> Iterable[Announce]:
    """As many as may be at work at once. One that is offline takes no place: its announcement waits for it."""
    released = evidence.released(rollout.wave)
    places = rollout.max_in_flight - sum(_in_flight(member) for member in released)
    for member in sorted(released, key=lambda member: member.wave):
        if member.touched or member.state != QUEUED or not member.active or member.held is not None:
            continue
        if member.online:
            if places <= 0:
                continue
            places -= 1
        yield Announce(member.device)


def _in_flight(member: Member) -> bool:
    return member.touched and not member.ended and member.online


def _overdue(rollout: Rollout, members: Iterable[Member], now: datetime) -> Iterable[Close]:
    """The ways forward that end because of time, or because the device was revoked."""
    timeout = timedelta(seconds=rollout.timeout_seconds)
    for member in members:
        if member.ended or member.recalled_at is not None:
            continue
        if not member.active:
            yield Close(member.device, "cancelled", E_DEVICE_REVOKED, "the device was revoked")
        elif member.told_at is not None and now - member.told_at - member.closed >= timeout:
            silent = member.state == QUEUED
            said = "nothing heard" if silent else f"still {member.state}"
            detail = f"{said} {timeout.total_seconds():g} s after the announcement"
            yield Close(member.device, TIMED_OUT, E_SILENT if silent else E_TIMEOUT, detail)


# --- to the end ---------------------------------------------------------------------------------------------


def _wind_down(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    """Wait for devices that were told, until each is back, has ended, or is out of time."""
    closing = tuple(_overdue(rollout, (member for member in evidence.members if member.touched), now))
    evidence = apply(evidence, closing, now)
    recalled = [member for member in evidence.members if member.recalled_at is not None]
    under_way = [
        member for member in evidence.members if member.touched and not member.ended and member.recalled_at is None
    ]
    timeout = timedelta(seconds=rollout.timeout_seconds)
    missing = [member for member in recalled if not member.back]
    waiting = [member for member in missing if member.recalled_at and now - member.recalled_at < timeout]
    if under_way or [member for member in waiting if not _stuck(member)]:
        return Step(rollout, closing)
    if rollout.state is State.ABORTING:
        return Step(rollout.moved(Event.SETTLE, now, rollout.reason), closing, (Note("warn", "Aborted"),))
    if not missing:
        note = Note("ok", f"Rolled back: {len(recalled)} of {len(recalled)} devices on the version before")
        return Step(rollout.moved(Event.SETTLE, now, rollout.reason), closing, (note,))
    return _gave_up(rollout, closing, missing, len(recalled), now)


def _gave_up(
    rollout: Rollout, closing: tuple[Action, ...], missing: Sequence[Member], recalled: int, now: datetime
) -> Step:
    names = ", ".join(member.device for member in missing[:3]) + (", ..." if len(missing) > 3 else "")
    text = f"{len(missing)} of {recalled} devices did not confirm the way back: {names}"
    detail = f"no word of the way back for {rollout.timeout_seconds:g} s"
    closed = [
        Close(member.device, TIMED_OUT, E_SILENT if member.state == QUEUED else E_TIMEOUT, detail)
        for member in missing
        if member.state not in ENDED
    ]
    reason = f"{rollout.reason}; {text}" if rollout.reason else text
    return Step(rollout.moved(Event.STICK, now, reason), (*closing, *closed), (Note("crit", text),))


def _stuck(member: Member) -> bool:
    """The way back itself ended, and the device is not back."""
    return not member.owed and member.state in ENDED


def pause(rollout: Rollout, now: datetime, by: str) -> Step:
    """No new announcements until `resume`.

    Raises:
        RolloutStateError: it is not running.
    """
    return Step(rollout.moved(Event.PAUSE, now, f"paused by {by}"), notes=(Note("warn", f"Paused by {by}"),))


def resume(rollout: Rollout, now: datetime, by: str) -> Step:
    """Go on after `pause`.

    Raises:
        RolloutStateError: it is not paused.
    """
    return Step(rollout.moved(Event.RESUME, now), notes=(Note("info", f"Resumed by {by}"),))


def promote(rollout: Rollout, by: str) -> Step:
    """Waive the bake of the wave that is out. Gates still hold.

    Raises:
        RolloutStateError: it is not running.
    """
    advance(rollout.state, Event.FINISH)  # only a running one may finish
    if rollout.promoted:
        return Step(rollout)
    return Step(replace(rollout, promoted=True), notes=(Note("info", f"Bake of this wave waived by {by}"),))


def over(rollout: Rollout) -> bool:
    """Nothing more will happen by itself."""
    return rollout.state in TERMINAL
