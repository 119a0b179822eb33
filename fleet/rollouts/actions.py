"""What a step may ask for, and what each action means for the evidence.

`apply` tells what actions mean for the evidence; the driver does the same to the rows, in the transaction
that saves the step.

I/O: none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, TypeAlias

from fleet.rollouts.numbers import Numbers
from fleet.rollouts.states import QUEUED, Evidence, Member, Rollout

#: Reasons that the manager itself gives for the end of a device's way.
E_SILENT: Final = "E_SILENT"  # nothing was heard since the announcement
E_TIMEOUT: Final = "E_TIMEOUT"  # it began, and did not finish in time
E_ROLLOUT_STOPPED: Final = "E_ROLLOUT_STOPPED"  # never told, because the rollout ended first
E_DEVICE_REVOKED: Final = "E_DEVICE_REVOKED"


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the device to go to the release; with `stage`, only to have it ready and to wait for `Switch`."""

    device: str
    stage: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """Tell the device that has the release ready to swap now."""

    device: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Tell the device to go back to `version`."""

    device: str
    version: str


@dataclass(frozen=True, slots=True)
class CallOff:
    """Tell the device, which has no version to go back to, to give the release up before it serves."""

    device: str


@dataclass(frozen=True, slots=True)
class Close:
    """The device's way ends here, as `state`, for `reason`. Nothing is sent."""

    device: str
    state: Literal["timed-out", "cancelled"]
    reason: str
    detail: str


Action: TypeAlias = Announce | Switch | Recall | CallOff | Close


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the timeline."""

    level: Literal["ok", "info", "warn", "crit"]
    text: str


@dataclass(frozen=True, slots=True)
class Condemned:
    """The release is proven bad on a hardware class: no rollout takes it there again unless forced."""

    hardware: str
    reason: str  # a code, or the name of the gate
    detail: str
    failed: int
    ended: int


@dataclass(frozen=True, slots=True)
class Step:
    """The rollout after the step, and what it owes."""

    rollout: Rollout
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()
    condemned: tuple[Condemned, ...] = ()
    #: What the gates judged by on the way, if they did: for the verdict that is kept. It asks for nothing.
    numbers: Numbers | None = field(default=None, compare=False)

    def then(self, following: "Step") -> "Step":
        """Both, one after the other."""
        return Step(
            following.rollout,
            (*self.actions, *following.actions),
            (*self.notes, *following.notes),
            (*self.condemned, *following.condemned),
            self.numbers or following.numbers,
        )


def apply(evidence: Evidence, actions: Iterable[Action], now: datetime) -> Evidence:
    """The evidence as it is once `actions` are saved."""
    by_device: dict[str, list[Action]] = {}
    for action in actions:
        by_device.setdefault(action.device, []).append(action)
    if not by_device:
        return evidence
    members = tuple(_all_applied(member, by_device.get(member.device, ()), now) for member in evidence.members)
    return replace(evidence, members=members)


def _all_applied(member: Member, actions: Iterable[Action], now: datetime) -> Member:
    for action in actions:
        member = applied(member, action, now)
    return member


def applied(member: Member, action: Action, now: datetime) -> Member:
    """The member after one action."""
    match action:
        case Announce(stage=stage):
            return replace(member, told_at=now, switched_at=None if stage else now, owed=True, since=now)
        case Switch():
            return replace(member, switched_at=now, owed=True, since=now)
        case Recall() | CallOff():
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
