"""One rollout, one step: (rollout, evidence, now) -> rollout, actions, notes. Stepping twice is harmless.

    canary        wave, bake, gates, next wave
    rolling       the same with batches; a batch of which too few arrive ends it
    blue-green    all stage the release; one switch; a validation period
    all at once   one wave of everybody, beyond the limit of places, after another person's approval

I/O: none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fleet.rollouts import shadowing
from fleet.rollouts.actions import (
    Action,
    Announce,
    CallOff,
    Close,
    Condemned,
    Note,
    Recall,
    Step,
    Switch,
    applied,
    apply,
)
from fleet.rollouts.errors import OwnApprovalError
from fleet.rollouts.gate import Check, Result, decide, worst
from fleet.rollouts.numbers import count
from fleet.rollouts.pacing import turns
from fleet.rollouts.states import TERMINAL, Event, Evidence, Member, Rollout, State, advance
from fleet.rollouts.winding import abort, overdue, wind_down
from shared.messages import Phase

__all__ = [
    "Action",
    "Announce",
    "CallOff",
    "Close",
    "Condemned",
    "Note",
    "Recall",
    "Step",
    "Switch",
    "abort",
    "applied",
    "apply",
    "approve",
    "over",
    "pause",
    "promote",
    "resume",
    "step",
]

#: Ends that the release itself is to blame for.
_BLAMED: Final = frozenset({str(Phase.ROLLED_BACK), str(Phase.FAILED)})
#: Gates that judge what devices reported of the update itself; the others judge how the release serves.
_OF_UPDATES: Final = frozenset({"failures", "failures v usual", "success", "golden agreement"})
#: Gates that say nothing of the release on a class of hardware.
_OF_NO_CLASS: Final = frozenset({"silence", "webhook"})


def step(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    """Decide the next move from what the fleet knows at `now`. Stepping twice is harmless."""
    match rollout.state:
        case State.RUNNING | State.PAUSED | State.AWAITING_APPROVAL:
            return _forward(rollout, evidence, now)
        case State.ABORTING | State.ROLLING_BACK:
            return wind_down(rollout, evidence, now)
        case State.COMPLETED | State.ABORTED | State.ROLLED_BACK | State.FAILED:
            return Step(rollout)


# --- on the way forward -------------------------------------------------------------------------------------


def _forward(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    closing = tuple(overdue(rollout, evidence.members, now))
    evidence = apply(evidence, closing, now)
    begun = Step(rollout, closing, tuple(Note("warn", f"{close.device}: {close.detail}") for close in closing))
    numbers = count(rollout, evidence, now)
    begun, checks = replace(begun, numbers=numbers), decide(numbers)
    if bad := next((check for check in checks if check.result is Result.FAIL), None):
        proven = tuple(_condemned(evidence.members, bad))
        return replace(begun, condemned=proven).then(_harmful(rollout, evidence, now, bad.detail))
    if rollout.state is not State.RUNNING:
        return begun
    grown = _grow(rollout, evidence, checks, now)
    if grown.rollout.state is not State.RUNNING:
        return begun.then(grown)
    return begun.then(grown).then(_told(grown.rollout, apply(evidence, grown.actions, now), now))


def _harmful(rollout: Rollout, evidence: Evidence, now: datetime, reason: str) -> Step:
    return abort(rollout, evidence, now, reason=reason, effects=rollout.policy)


def _told(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    tell = turns(rollout, evidence, now).tell
    telling: list[Action] = [Announce(device, stage=rollout.stages_first) for device in tell]
    if rollout.strategy == "blue-green" and not rollout.stages_first:  # those that had it staged after the switch
        telling += [Switch(member.device) for member in evidence.members if member.staged]
    return Step(rollout, tuple(telling))


def _condemned(members: Sequence[Member], bad: Check) -> Iterable[Condemned]:
    """The hardware classes on which the release is proven bad: where it failed, or, when it serves badly, where it
    serves."""
    for hardware in sorted({member.hardware for member in members if member.touched and member.hardware}):
        mine = [member for member in members if member.hardware == hardware and member.touched and member.ended]
        blamed = [member for member in mine if member.forward in _BLAMED]
        serves = [member for member in mine if member.forward == Phase.COMMITTED]
        if bad.name in _OF_UPDATES and blamed:
            reason = blamed[0].outcome_reason or blamed[0].reason or blamed[0].forward
            yield Condemned(hardware, reason, bad.detail, len(blamed), len(mine))
        elif bad.name not in _OF_UPDATES and bad.name not in _OF_NO_CLASS and serves:
            yield Condemned(hardware, bad.name, bad.detail, len(blamed), len(mine))


def _grow(rollout: Rollout, evidence: Evidence, checks: Sequence[Check], now: datetime) -> Step:
    """Release the next wave, switch, begin or end a bake, complete; at most one of them, save for waves of nobody."""
    if rollout.wave < 0:
        return _release(rollout, now)
    released = evidence.released(rollout.wave)
    if rollout.stages_first and any(member.staged or not member.ended for member in released):
        return _switch(rollout, evidence, now)
    if not all(member.ended for member in released):
        return Step(rollout)
    if rollout.strategy == "rolling" and (why := _batch_failed(rollout, released)):
        return _harmful(rollout, evidence, now, why)
    return _after_the_wave(rollout, evidence, checks, now)


def _after_the_wave(rollout: Rollout, evidence: Evidence, checks: Sequence[Check], now: datetime) -> Step:
    name = rollout.waves[rollout.wave].name
    begun = Step(rollout)
    if rollout.baking_since is None:
        rollout = replace(rollout, baking_since=now)
        text = f"{name}: every device has ended, watching for {rollout.bake_seconds:g} s"
        begun = Step(rollout, notes=(Note("info", text),) if rollout.bakes_at_all and not rollout.promoted else ())
    if not rollout.promoted and not _baked(rollout, checks, now):
        return begun
    if rollout.in_last_wave:
        done = sum(member.forward == Phase.COMMITTED for member in evidence.members)
        note = Note("ok", f"Completed: {done} of {len(evidence.members)} devices on {rollout.version}")
        return begun.then(Step(replace(rollout.moved(Event.FINISH, now), promoted=False), notes=(note,)))
    passed = Step(rollout, notes=(Note("ok", f"{name}: all gates passed"),))
    return begun.then(passed).then(_release(rollout, now))


def _switch(rollout: Rollout, evidence: Evidence, now: datetime) -> Step:
    """The one switch, as soon as the share asked has the release staged; the end when that cannot be any more."""
    members = evidence.members
    ready = [member for member in members if member.staged]
    have = len(ready) + sum(member.forward == Phase.COMMITTED for member in members)
    moving = sum(not member.staged and not member.ended for member in members)
    needed = rollout.stage_ratio * len(members)
    if have + moving < needed:
        why = f"only {have + moving} of {len(members)} devices can have it staged; asked were {rollout.stage_ratio:.0%}"
        return _harmful(rollout, evidence, now, why)
    if have < needed or not ready:
        return Step(rollout)
    note = Note("ok", f"{have} of {len(members)} devices have it staged: all of them switch now")
    return Step(replace(rollout, switched_at=now), tuple(Switch(member.device) for member in ready), (note,))


def _batch_failed(rollout: Rollout, released: Iterable[Member]) -> str | None:
    """Why the newest batch counts as failed, whatever the batches before it did."""
    batch = [member for member in released if member.wave == rollout.wave]
    done = sum(member.forward == Phase.COMMITTED for member in batch)
    if done >= rollout.limits.min_success_ratio * len(batch):
        return None
    return f"{rollout.waves[rollout.wave].name} failed: {done} of {len(batch)} devices have the release"


def _baked(rollout: Rollout, checks: Sequence[Check], now: datetime) -> bool:
    left = rollout.bake_left(now)
    if left is not None and left > timedelta(0):
        return False
    if any(check.holds and check.result is Result.WAIT for check in checks):
        return False
    return not (rollout.limits.require_evidence and worst(checks) is Result.WAIT)


def _release(rollout: Rollout, now: datetime) -> Step:
    following = rollout.wave + 1
    wave = rollout.waves[following]
    if rollout.manual and following > rollout.cleared:
        why = f"{wave.name} waits for approval"
        asked = replace(rollout.moved(Event.ASK, now, why), promoted=False)
        return Step(asked, notes=(Note("warn", f"{why}: flotilla rollout approve {rollout.id}"),))
    grown = replace(rollout, wave=following, baking_since=None, promoted=False)
    devices = "1 device" if wave.size == 1 else f"{wave.size} devices"
    return Step(grown, notes=(Note("info", f"{wave.name} released: {devices}"),))


# --- what people ask for ------------------------------------------------------------------------------------


def approve(rollout: Rollout, now: datetime, by: str) -> Step:
    """Let it begin, or let the next wave go.

    Raises:
        RolloutStateError: it does not wait for approval.
        OwnApprovalError: another person than the author has to.
    """
    approved = rollout.moved(Event.APPROVE, now)
    if rollout.needs_approval and by == rollout.author:
        raise OwnApprovalError(f"{by} started {rollout.id}; somebody else has to approve it")
    cleared = max(0, rollout.wave + 1)
    approved = replace(approved, cleared=cleared, approved_by=(*rollout.approved_by, by))
    return Step(approved, notes=(Note("info", f"Approved by {by}"),))


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


def promote(rollout: Rollout, by: str, members: Iterable[Member] = ()) -> Step:
    """Waive the bake of the wave that is out. Gates still hold. Where candidates look on in the shadow, their time is
    over instead: these devices swap, and later ones compare nothing.

    Raises:
        RolloutStateError: it is not running.
    """
    advance(rollout.state, Event.FINISH)  # only a running one may finish
    if looking := [member.device for member in members if shadowing.looks_on(member)]:
        note = Note("info", f"Shadow ended by {by}: {len(looking)} devices go on to the swap")
        return Step(replace(rollout, shadow=None), tuple(Announce(device) for device in looking), (note,))
    if rollout.promoted:
        return Step(rollout)
    return Step(replace(rollout, promoted=True), notes=(Note("info", f"Bake of this wave waived by {by}"),))


def over(rollout: Rollout) -> bool:
    """Nothing more will happen by itself."""
    return rollout.state in TERMINAL
