"""The phases of one update: (state, event) -> state, and the effect that each state owes.

    announced -verify-> verified -plan-> planned -clear-> fetching -fetch-> fetched -assemble-> assembled
      -stage-> staged -self-test-> self-tested -swap-> probation -watch-> proven -commit-> COMMITTED
                          '-> shadowing -compare-> shadowed -swap-'

Whatever goes wrong before a slot is touched ends REFUSED; afterwards the slot is retired first and
the update ends FAILED, ROLLED_BACK or CANCELLED. A state is saved before its effect is performed;
every effect may be performed again.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from shared.delta.offer import Offer
from shared.messages import Phase, ShadowFigures
from shared.shadow import Terms
from shared.windows import Window

SlotName = Literal["a", "b"]


class IllegalMoveError(RuntimeError):
    """Misuse by our own code: the table has no such move."""


class State(StrEnum):
    """Where an update stands. The last five are final."""

    ANNOUNCED = "announced"
    VERIFIED = "verified"
    PLANNED = "planned"
    FETCHING = "fetching"
    FETCHED = "fetched"
    ASSEMBLED = "assembled"
    STAGED = "staged"
    SELF_TESTED = "self-tested"
    SHADOWING = "shadowing"
    SHADOWED = "shadowed"
    PROBATION = "probation"
    PROVEN = "proven"
    FAILING = "failing"
    CONDEMNED = "condemned"
    CANCELLING = "cancelling"
    COMMITTED = "committed"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What an effect came to, or what happened meanwhile."""

    TRUSTED = "trusted"  # signatures, counters and dates hold
    PLANNED = "planned"  # admitted, and something must be fetched
    HELD = "held"  # admitted, and the idle slot holds it already
    SERVED = "served"  # it is what serves: nothing to do
    CLEARED = "cleared"  # the idle slot is empty
    FETCHED = "fetched"  # every chunk is in the store
    CHUNK_LOST = "chunk-lost"  # a stored chunk is damaged: fetch it again
    ASSEMBLED = "assembled"  # files in the slot, digests checked, model scanned
    STAGED = "staged"  # the slot record says so
    PASSED = "passed"  # self-test, shadow or probation
    CHOSEN = "chosen"  # self-tested, and to be compared with what serves before it may
    RENEWED = "renewed"  # other terms for the comparison arrived
    SWAPPED = "swapped"  # it answers requests
    COMMITTED = "committed"  # the slot is good for ever
    REJECTED = "rejected"  # with a reason
    SUPERSEDED = "superseded"  # a newer assignment arrived
    RETIRED = "retired"  # its slot is empty, the old version serves


class Effect(StrEnum):
    """What a state owes."""

    VERIFY = "verify"
    PLAN = "plan"
    CLEAR = "clear"
    FETCH = "fetch"
    ASSEMBLE = "assemble"
    STAGE = "stage"
    SELF_TEST = "self-test"
    COMPARE = "compare"
    SWAP = "swap"
    WATCH = "watch"
    COMMIT = "commit"
    RETIRE = "retire"


_GIVEN_UP: Final[Mapping[Event, State]] = {Event.REJECTED: State.FAILING, Event.SUPERSEDED: State.CANCELLING}

MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.ANNOUNCED: {
        Event.TRUSTED: State.VERIFIED,
        Event.REJECTED: State.REFUSED,
    },
    State.VERIFIED: {
        Event.PLANNED: State.PLANNED,
        Event.HELD: State.ASSEMBLED,
        Event.SERVED: State.COMMITTED,
        Event.REJECTED: State.REFUSED,
        Event.SUPERSEDED: State.CANCELLED,
    },
    State.PLANNED: {Event.CLEARED: State.FETCHING, **_GIVEN_UP},
    State.FETCHING: {Event.FETCHED: State.FETCHED, **_GIVEN_UP},
    State.FETCHED: {Event.ASSEMBLED: State.ASSEMBLED, Event.CHUNK_LOST: State.FETCHING, **_GIVEN_UP},
    State.ASSEMBLED: {Event.STAGED: State.STAGED, **_GIVEN_UP},
    State.STAGED: {Event.PASSED: State.SELF_TESTED, Event.CHOSEN: State.SHADOWING, **_GIVEN_UP},
    State.SELF_TESTED: {Event.SWAPPED: State.PROBATION, **_GIVEN_UP},
    State.SHADOWING: {Event.PASSED: State.SHADOWED, Event.RENEWED: State.SHADOWING, **_GIVEN_UP},
    State.SHADOWED: {Event.SWAPPED: State.PROBATION, **_GIVEN_UP},
    State.PROBATION: {
        Event.PASSED: State.PROVEN,
        Event.REJECTED: State.CONDEMNED,
        Event.SUPERSEDED: State.CANCELLING,
    },
    State.PROVEN: {
        Event.COMMITTED: State.COMMITTED,
        Event.REJECTED: State.CONDEMNED,
        Event.SUPERSEDED: State.CANCELLING,
    },
    State.FAILING: {Event.RETIRED: State.FAILED},
    State.CONDEMNED: {Event.RETIRED: State.ROLLED_BACK},
    State.CANCELLING: {Event.RETIRED: State.CANCELLED},
    State.COMMITTED: {},
    State.REFUSED: {},
    State.FAILED: {},
    State.ROLLED_BACK: {},
    State.CANCELLED: {},
}

OWES: Final[Mapping[State, Effect]] = {
    State.ANNOUNCED: Effect.VERIFY,
    State.VERIFIED: Effect.PLAN,
    State.PLANNED: Effect.CLEAR,
    State.FETCHING: Effect.FETCH,
    State.FETCHED: Effect.ASSEMBLE,
    State.ASSEMBLED: Effect.STAGE,
    State.STAGED: Effect.SELF_TEST,
    State.SELF_TESTED: Effect.SWAP,
    State.SHADOWING: Effect.COMPARE,
    State.SHADOWED: Effect.SWAP,
    State.PROBATION: Effect.WATCH,
    State.PROVEN: Effect.COMMIT,
    State.FAILING: Effect.RETIRE,
    State.CONDEMNED: Effect.RETIRE,
    State.CANCELLING: Effect.RETIRE,
}

#: What the fleet is told on entering a state; states without a phase are steps that only we see.
PHASES: Final[Mapping[State, Phase]] = {
    state: Phase(state.value) for state in State if state.value in {phase.value for phase in Phase}
}

#: A newer assignment may push it aside here. Once it answers requests, only one of its own model may.
INTERRUPTIBLE: Final = frozenset(state for state, moves in MOVES.items() if Event.SUPERSEDED in moves)
SWAPPED_IN: Final = frozenset({State.PROBATION, State.PROVEN})
LEAVING: Final = frozenset({State.FAILING, State.CONDEMNED, State.CANCELLING})


@dataclass(frozen=True, slots=True)
class Update:
    """One assignment on its way. This is what the journal keeps."""

    assignment: int
    model: str
    version: str
    manifest: str  # digest of the release's manifest
    sealed_key: str  # content key, for this device only
    rollout: str | None = None
    force: bool = False  # try it although it is known to be bad
    later: bool = False  # have it ready, and do not swap before another assignment of it says so
    called_off: bool = False  # do not begin it; what of it is under way and does not serve yet is given up
    state: State = State.VERIFIED
    reason: str | None = None
    detail: str | None = None
    slot: SlotName | None = None
    previous: str | None = None  # version that served before
    total_bytes: int | None = None  # on the wire
    fetched_bytes: int | None = None
    sources: Mapping[str, int] = field(default_factory=dict)  # bytes that came, by the name of the source
    window: Window | None = None  # swap inside it only; None: at once
    keep_versions: int | None = None  # of the model; None: nobody said, none more is put aside
    shadow: Terms | None = None  # to be met beside what serves; None: no comparison is asked for
    compared: ShadowFigures | None = None  # what the comparison showed up to now
    offers: tuple[Offer, ...] = ()  # deltas that lead to the release
    delta: Offer | None = None  # the one that is used, from the model file that serves

    @property
    def final(self) -> bool:
        """True when nothing more will happen."""
        return not MOVES[self.state]

    @property
    def release(self) -> str:
        """`model@version`, for people."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Draft:
    """An update report without what the outbox adds (device, stream, sequence, time)."""

    assignment: int
    phase: Phase
    model: str | None = None
    version: str | None = None
    rollout: str | None = None
    reason: str | None = None
    detail: str | None = None
    took_ms: float | None = None
    fetched_bytes: int | None = None
    total_bytes: int | None = None
    sources: Mapping[str, int] | None = None
    shadow: ShadowFigures | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How the last update of a model ended, for people."""

    model: str
    version: str
    phase: Phase
    at: datetime  # wall time of the device
    reason: str | None = None
    detail: str | None = None


def advance(update: Update, event: Event, *, reason: str | None = None, detail: str | None = None) -> Update:
    """`update` after `event`. Leaving for the worse needs a reason; it stays until the end.

    Raises:
        IllegalMoveError: the table has no such move.
        ValueError: rejected without a reason.
    """
    try:
        state = MOVES[update.state][event]
    except KeyError:
        raise IllegalMoveError(f"{event} while {update.state}") from None
    if event is Event.REJECTED and not reason:
        raise ValueError("rejected without a reason")
    return replace(update, state=state, reason=reason or update.reason, detail=detail or update.detail)


def holds_back(update: Update) -> bool:
    """True when the swap comes next, and has to wait for another assignment of the same release."""
    return update.later and update.state in (State.SELF_TESTED, State.SHADOWED)


def may_supersede(update: Update, newer: Update) -> bool:
    """True when `newer` shall push `update` aside now. Another assignment of the same release is no reason, unless it
    calls off what does not serve yet.
    """
    if newer.manifest == update.manifest and not calls_off(update, newer):
        return False
    if update.state in SWAPPED_IN:
        return update.model == newer.model
    return update.state in INTERRUPTIBLE


def may_adopt(update: Update, newer: Update) -> bool:
    """True when `update` shall go on under the terms of `newer`, which is of the same release."""
    open_to_it = update.state not in LEAVING and not update.called_off and not calls_off(update, newer)
    return newer.manifest == update.manifest and open_to_it


def calls_off(update: Update, newer: Update) -> bool:
    """True when `newer` ends `update`: they are of one release, and it does not serve yet."""
    return newer.called_off and newer.manifest == update.manifest and update.state not in SWAPPED_IN


def why_aside(update: Update, newer: Update | None) -> str:
    """For people: why `update` was superseded; `newer` is what waits."""
    off = update.called_off or (newer is not None and calls_off(update, newer))
    return "the manager called it off" if off else "a newer assignment arrived"


def draft(update: Update, *, took_ms: float | None = None) -> Draft | None:
    """What to tell the fleet about the state that `update` is in; None when there is nothing to tell."""
    phase = PHASES.get(update.state)
    if phase is None:
        return None
    happy = update.state in OWES or update.state is State.COMMITTED
    return Draft(
        assignment=update.assignment,
        phase=phase,
        model=update.model,
        version=update.version,
        rollout=update.rollout,
        reason=None if happy else update.reason,
        detail=None if happy else update.detail,
        took_ms=took_ms,
        fetched_bytes=update.fetched_bytes,
        total_bytes=update.total_bytes,
        sources=update.sources or None,
        shadow=update.compared,
    )
