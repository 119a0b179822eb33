"""A stop, and the way to its end: what the named effects do to each device, in which order, how fast.

    stop new        who was not told is closed, with the reason
    cancel queued   told and not begun: called back
    interrupt       under way, or staged: called back
    roll back       who has the release goes back to the version before, from the other slot where that holds it

Called back is always the same thing: a new assignment of the version before (ADR 8). A device without one is told
to give up what does not serve yet, and keeps what does. The effects stay with the rollout: a device that finishes
after the stop is dealt with then.

I/O: none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fleet.rollouts.actions import (
    E_DEVICE_REVOKED,
    E_ROLLOUT_STOPPED,
    E_SILENT,
    E_TIMEOUT,
    Action,
    CallOff,
    Close,
    Note,
    Recall,
    Step,
    apply,
)
from fleet.rollouts.states import (
    ENDED,
    QUEUED,
    TIMED_OUT,
    Effect,
    Event,
    Evidence,
    Member,
    Rollout,
    State,
)
from shared.messages import Phase

_MINUTE: Final = timedelta(minutes=1)
_NOT_BEGUN: Final = frozenset({QUEUED, str(Phase.ANNOUNCED)})


def abort(rollout: Rollout, evidence: Evidence, now: datetime, *, reason: str, effects: Sequence[Effect]) -> Step:
    """Stop, with these effects. Also brings a completed or aborted rollout back.

    Raises:
        RolloutStateError: it is already on its way back, or there.
    """
    never = tuple(
        Close(member.device, "cancelled", E_ROLLOUT_STOPPED, "the rollout ended before its turn")
        for member in evidence.members
        if not member.touched and member.state == QUEUED
    )
    back = Effect.ROLL_BACK in effects
    chosen = tuple(effect for effect in Effect if effect in effects or effect is Effect.STOP_NEW)
    stopped = replace(rollout.moved(Event.RECALL if back else Event.STOP, now, reason), ending=chosen)
    notes = (
        Note("crit" if back else "warn", f"Stopped: {reason}"),
        Note("info", _told(stopped, evidence.members, len(never))),
    )
    begun = Step(stopped, never, notes)
    return begun.then(wind_down(stopped, apply(evidence, never, now), now))


def _told(rollout: Rollout, members: Iterable[Member], never: int) -> str:
    due = [member for member in members if _due(rollout, member)]
    back = [member for member in due if member.previous is not None]
    versions = ", ".join(sorted({str(member.previous) for member in back}))
    said = [f"{_many(len(back), 'device goes', 'devices go')} back to {versions}"] if back else []
    if off := len(due) - len(back):
        gives = _many(off, "device gives up what it", "devices give up what they")
        said.append(f"{gives} had begun, with nothing before it")
    said = said or ["Devices that have the release keep it"]
    return "; ".join((*said, f"{_many(never, 'was', 'were')} never told"))


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def wind_down(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    """Call back who is due, and wait until each device that was told is back, has ended, or is out of time."""
    closing = (*_never_switched(rollout, evidence.members), *overdue(rollout, _touched(evidence), now))
    evidence = apply(evidence, closing, now)
    recalls, waiting = _recalls(rollout, evidence, now)
    evidence = apply(evidence, recalls, now)
    actions: tuple[Action, ...] = (*closing, *recalls)
    members = evidence.members
    if waiting or any(member.touched and not member.ended and member.recalled_at is None for member in members):
        return Step(rollout, actions)
    recalled = [member for member in members if member.recalled_at is not None]
    missing = [member for member in recalled if not member.back]
    timeout = timedelta(seconds=rollout.timeout_seconds)
    in_time = [member for member in missing if member.recalled_at and now - member.recalled_at < timeout]
    if any(not _stuck(member) for member in in_time):
        return Step(rollout, actions)
    closed = tuple(_given_up(rollout, missing))
    return Step(rollout, (*actions, *closed)).then(_end(rollout, missing, len(recalled), now))


def _touched(evidence: Evidence) -> Iterable[Member]:
    return (member for member in evidence.members if member.touched)


def _due(rollout: Rollout, member: Member) -> bool:
    """True when an effect of the stop calls this device back."""
    if not member.touched or member.recalled_at is not None:
        return False
    if member.previous is None and (member.ended or member.state == Phase.PROBATION):
        return False  # it serves, or nothing does
    if member.ended and member.serving not in (None, rollout.version, member.previous):
        return False  # it moved on to another version since
    if member.ended:
        return Effect.ROLL_BACK in rollout.ending
    begun = Effect.CANCEL_QUEUED if member.state in _NOT_BEGUN else Effect.INTERRUPT
    return begun in rollout.ending


def _recalls(rollout: Rollout, evidence: Evidence, now: datetime) -> tuple[tuple[Recall | CallOff, ...], int]:
    """Who is called back now, and how many have to wait for the rate."""
    due = [member for member in evidence.members if _due(rollout, member)]
    if not due:
        return (), 0
    lately = sum(member.recalled_at is not None and member.recalled_at > now - _MINUTE for member in evidence.members)
    may = max(0, max(1, int(rollout.recalls_per_minute)) - lately)
    ordered = sorted(due, key=lambda member: _risk(evidence, member))
    recalls = tuple(_recall(member) for member in ordered[:may])
    return recalls, len(due) - len(recalls)


def _recall(member: Member) -> Recall | CallOff:
    return CallOff(member.device) if member.previous is None else Recall(member.device, member.previous)


def _risk(evidence: Evidence, member: Member) -> tuple[bool, int]:
    """Smallest first: crashing devices, then the canary, then wave by wave."""
    return member.device not in evidence.crashing, member.wave


def _never_switched(rollout: Rollout, members: Iterable[Member]) -> Iterable[Close]:
    """Staged and not called back: it waits for a switch that never comes, and serves what it served."""
    if rollout.strategy != "blue-green":
        return
    for member in members:
        if member.staged and not _due(rollout, member):
            detail = "staged, and never told to switch: it serves what it served before"
            yield Close(member.device, "cancelled", E_ROLLOUT_STOPPED, detail)


def overdue(rollout: Rollout, members: Iterable[Member], now: datetime) -> Iterable[Close]:
    """The ways forward that end because of time, or because the device was revoked."""
    timeout = timedelta(seconds=rollout.timeout_seconds)
    latest = now - timeout
    for member in members:
        if member.recalled_at is not None or member.state in ENDED:
            continue
        if not member.active:
            yield Close(member.device, "cancelled", E_DEVICE_REVOKED, "the device was revoked")
            continue
        since = member.switched_at or member.told_at
        if since is None or since > latest or (rollout.strategy == "blue-green" and member.staged):
            continue  # the last did its part, and waits for the others
        if now - since - member.closed >= timeout:
            silent = member.state == QUEUED
            said = "nothing heard" if silent else f"still {member.state}"
            what = "the announcement" if since == member.told_at else "the switch"
            detail = f"{said} {timeout.total_seconds():g} s after {what}"
            yield Close(member.device, TIMED_OUT, E_SILENT if silent else E_TIMEOUT, detail)


def _given_up(rollout: Rollout, missing: Iterable[Member]) -> Iterable[Close]:
    detail = f"no word of the way back for {rollout.timeout_seconds:g} s"
    for member in missing:
        if member.state not in ENDED:
            yield Close(member.device, TIMED_OUT, E_SILENT if member.state == QUEUED else E_TIMEOUT, detail)


def _end(rollout: Rollout, missing: Sequence[Member], recalled: int, now: datetime) -> Step:
    names = ", ".join(member.device for member in missing[:3]) + (", ..." if len(missing) > 3 else "")
    text = f"{len(missing)} of {recalled} devices did not confirm the way back: {names}"
    reason = "; ".join(filter(None, (rollout.reason, text if missing else "")))
    if rollout.state is State.ABORTING:
        return Step(rollout.moved(Event.SETTLE, now, reason or None), notes=(Note("warn", "Aborted"),))
    if missing:
        return Step(rollout.moved(Event.STICK, now, reason), notes=(Note("crit", text),))
    note = Note("ok", f"Rolled back: {recalled} of {recalled} devices on the version before")
    return Step(rollout.moved(Event.SETTLE, now, rollout.reason), notes=(note,))


def _stuck(member: Member) -> bool:
    """The way back itself ended, and the device is not back."""
    return not member.owed and member.state in ENDED
