"""What a rollout is, the states it goes through, and what is known of its devices.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, Self

from fleet.rollouts.budgets import Ramp as Ramp
from fleet.rollouts.budgets import SiteBudget as SiteBudget
from fleet.rollouts.errors import RolloutStateError
from fleet.rollouts.trials import Trials
from fleet.schedules.precedence import E_PREEMPTED, Priority
from fleet.schedules.timing import Timetable
from shared.messages import Phase, ShadowFigures
from shared.shadow import Terms


class State(StrEnum):
    """Where a rollout stands; the words of API and dashboard."""

    AWAITING_APPROVAL = "awaiting-approval"  # nothing is announced until a person approves
    RUNNING = "running"
    PAUSED = "paused"  # nothing new is announced; devices that were told go on
    COMPLETED = "completed"
    ABORTING = "aborting"  # nothing new; waiting for devices that were told
    ABORTED = "aborted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"  # some devices did not confirm the way back


class Event(StrEnum):
    """What may happen to a rollout."""

    ASK = "ask"  # the next wave needs a person
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    STOP = "stop"  # devices that have the release keep it
    RECALL = "recall"  # devices that were told go back
    SETTLE = "settle"
    STICK = "stick"


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.AWAITING_APPROVAL: {
        Event.APPROVE: State.RUNNING,
        Event.STOP: State.ABORTING,
        Event.RECALL: State.ROLLING_BACK,
    },
    State.RUNNING: {
        Event.ASK: State.AWAITING_APPROVAL,
        Event.PAUSE: State.PAUSED,
        Event.FINISH: State.COMPLETED,
        Event.STOP: State.ABORTING,
        Event.RECALL: State.ROLLING_BACK,
    },
    State.PAUSED: {Event.RESUME: State.RUNNING, Event.STOP: State.ABORTING, Event.RECALL: State.ROLLING_BACK},
    State.COMPLETED: {Event.RECALL: State.ROLLING_BACK},
    State.ABORTING: {Event.SETTLE: State.ABORTED, Event.RECALL: State.ROLLING_BACK},
    State.ABORTED: {Event.RECALL: State.ROLLING_BACK},
    State.ROLLING_BACK: {Event.SETTLE: State.ROLLED_BACK, Event.STICK: State.FAILED},
    State.ROLLED_BACK: {},
    State.FAILED: {},
}

#: Nothing happens by itself any more.
TERMINAL: Final = frozenset({State.COMPLETED, State.ABORTED, State.ROLLED_BACK, State.FAILED})


#: What people call the events that they cause.
VERBS: Final[Mapping[Event, str]] = {
    Event.APPROVE: "approve",
    Event.PAUSE: "pause",
    Event.RESUME: "resume",
    Event.FINISH: "promote",
    Event.STOP: "abort",
    Event.RECALL: "roll back",
}


def advance(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        RolloutStateError: the table has no such move.
    """
    try:
        return MOVES[state][event]
    except KeyError:
        allowed = ", ".join(verb for known, verb in VERBS.items() if known in MOVES[state]) or "nothing any more"
        raise RolloutStateError(
            f"cannot {VERBS.get(event, event)} a rollout that is {state}", remedy=f"possible now: {allowed}"
        ) from None


QUEUED: Final = "queued"
TIMED_OUT: Final = "timed-out"
#: States of a device that are the end of its way.
ENDED: Final = frozenset({*(str(phase) for phase in Phase if phase.final), TIMED_OUT})
#: Ends in which the device still serves what it served before.
STAYED: Final = frozenset({str(Phase.REFUSED), str(Phase.FAILED), str(Phase.ROLLED_BACK), str(Phase.CANCELLED)})


@dataclass(frozen=True, slots=True)
class Wave:
    """One step of a rollout: how many devices it adds, and how it is called."""

    name: str
    target: str
    size: int


@dataclass(frozen=True, slots=True)
class Criterion:
    """Stop when more than `ratio` of the devices that ended, ended like this; at least `minimum` have ended."""

    kind: Literal["rolled-back", "refused", "failed", "timed-out", "cancelled", "any"]
    ratio: float
    minimum: int = 1


@dataclass(frozen=True, slots=True)
class Hook:
    """Somebody outside who is asked about each wave: at `url`, or where the channel of this name posts."""

    url: str | None = None
    channel: str | None = None
    timeout_seconds: float = 10.0
    every_seconds: float = 60.0
    give_up_seconds: float = 3600.0  # of a wave without a pass; then as `on_limit` says
    on_limit: Literal["wait", "fail"] = "wait"


@dataclass(frozen=True, slots=True)
class Limits:
    """The guard rails of one rollout."""

    criteria: tuple[Criterion, ...] = (Criterion("rolled-back", 0.0), Criterion("any", 0.1))
    min_success_ratio: float = 0.5  # of a wave, before the next one
    max_error_ratio: float = 0.05
    max_latency_ms: float = 1000.0
    min_requests: int = 50  # below it, neither errors nor latency are judged
    max_psi: float = 0.2
    max_restarts: int = 3  # of the inference worker of one device
    silence_seconds: float = 300.0
    max_silent_ratio: float = 0.5  # of the devices that have the release
    require_evidence: bool = False  # hold a wave until every gate could be judged
    min_shadow_agreement: float | None = None  # proven with 95 % confidence before the next wave; None: not required
    max_degradation: float = 0.1  # as many more errors, crashes, wrong answers than the control has are tolerated
    false_abort_level: float = 0.01  # chance that one comparison ever stops a rollout that does no harm
    max_accuracy_loss: float = 0.05  # against the reference data, as a difference of ratios, for certain
    min_labelled: int = 100  # below it, accuracy is not judged
    min_golden_ratio: float = 0.9  # of devices whose self-test gives the golden outputs
    webhook: Hook | None = None


class Effect(StrEnum):
    """What a stop does, from the mildest on. Each is named by the operator, or follows from the rollout's policy."""

    STOP_NEW = "stop-new"  # nobody else is told: part of every stop
    CANCEL_QUEUED = "cancel-queued"  # told, and not begun: called back
    INTERRUPT = "interrupt"  # under way, or staged: called back
    ROLL_BACK = "roll-back"  # who has the release goes back to the version before


#: The stop that leaves nothing of the release.
ALL_BACK: Final = tuple(Effect)

Strategy = Literal["canary", "rolling", "blue-green", "all-at-once"]


@dataclass(frozen=True, slots=True)
class Target:
    """Who is meant, as it was asked: who fits later joins. All of it must hold."""

    ids: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    site: str | None = None
    filter: str = ""
    channel: str | None = None  # who follows this alias of the model, and serves the model


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout: what was asked, and how far it is. Devices are in the evidence, not here."""

    id: str
    model: str
    version: str
    strategy: Strategy
    waves: tuple[Wave, ...]
    since: datetime  # when `state` began
    state: State = State.RUNNING
    reason: str | None = None
    wave: int = -1  # newest wave that was released
    baking_since: datetime | None = None
    promoted: bool = False  # a person waived the bake of this wave
    bake_seconds: float = 300.0
    timeout_seconds: float = 1800.0
    max_in_flight: int = 5
    auto_rollback: bool = True
    limits: Limits = field(default_factory=Limits)
    author: str = ""
    target: Target | None = None  # None: begun before targets were kept; nobody joins
    window: Timetable | None = None  # devices swap inside it only; None: at once
    priority: Priority = "normal"
    force: bool = False  # also where the release is proven bad
    bytes_each: int = 0  # of one device, at most
    ramp: Ramp | None = None
    site_budget: SiteBudget = field(default_factory=SiteBudget)
    needs_approval: bool = False  # of another person than the author, before anything is announced
    manual: bool = False  # a person approves each wave after the first
    cleared: int = 0  # newest wave that may be released
    approved_by: tuple[str, ...] = ()
    stage_ratio: float = 1.0  # blue-green: the share that must have it staged before the switch
    switched_at: datetime | None = None  # blue-green: when the one switch was decided
    on_failure: tuple[Effect, ...] | None = None  # None: as `auto_rollback` says
    ending: tuple[Effect, ...] = ()  # what the stop that was decided does
    recalls_per_minute: float = 1000.0

    @property
    def policy(self) -> tuple[Effect, ...]:
        """What a stop does when nobody says otherwise."""
        if self.on_failure is not None:
            return self.on_failure
        return ALL_BACK if self.auto_rollback else (Effect.STOP_NEW,)

    @property
    def stages_first(self) -> bool:
        """Devices that are told now only stage the release."""
        return self.strategy == "blue-green" and self.switched_at is None

    shadow: Terms | None = None  # devices compare the release with what serves before they swap

    @property
    def in_last_wave(self) -> bool:
        return self.wave >= len(self.waves) - 1

    @property
    def bakes_at_all(self) -> bool:
        """The last batch of a rolling update ends it; the last wave of a canary is watched as well."""
        return self.bake_seconds > 0 and not (self.strategy == "rolling" and self.in_last_wave)

    def bake_left(self, now: datetime) -> timedelta | None:
        """What remains of the bake; None unless the wave bakes."""
        if self.baking_since is None or not self.bakes_at_all:
            return None
        return max(timedelta(0), self.baking_since + timedelta(seconds=self.bake_seconds) - now)

    def moved(self, event: Event, now: datetime, reason: str | None = None) -> Self:
        """After `event`, at `now`.

        Raises:
            RolloutStateError: not from this state.
        """
        return replace(self, state=advance(self.state, event), since=now, reason=reason)


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a rollout, as the manager knows it."""

    device: str
    wave: int  # from 0
    since: datetime  # when `state` began
    site: str = ""
    hardware: str = ""
    state: str = QUEUED
    reason: str | None = None
    detail: str | None = None
    previous: str | None = None
    told_at: datetime | None = None
    switched_at: datetime | None = None  # when it was decided that it swaps: with the announcement, or later
    recalled_at: datetime | None = None
    outcome: str | None = None  # how the way forward stood when it was recalled
    outcome_reason: str | None = None
    outcome_detail: str | None = None
    owed: bool = False  # an announcement was decided and is not yet out
    online: bool = True
    seen_at: datetime | None = None
    serving: str | None = None
    active: bool = True  # not revoked
    fetched_bytes: int | None = None
    total_bytes: int | None = None
    shadow: ShadowFigures | None = None
    sources: Mapping[str, int] = field(default_factory=dict)  # bytes that came, by source
    held: str | None = None  # why it is not told yet; None: it may be
    closed: timedelta = timedelta(0)  # of the time since it was told, when its window let it do nothing

    @property
    def preempted(self) -> bool:
        """A rollout of higher priority took it before its turn came."""
        return not self.touched and self.reason == E_PREEMPTED

    @property
    def forward(self) -> str:
        """How the way forward stands, or stood when it was recalled."""
        return self.state if self.recalled_at is None else self.outcome or QUEUED

    @property
    def ended(self) -> bool:
        """The way forward is over, well or not."""
        return (self.state if self.recalled_at is None else self.forward) in ENDED  # asked of each device at each look

    @property
    def touched(self) -> bool:
        """It was told, so that it may have the release, or get it."""
        return self.told_at is not None

    @property
    def staged(self) -> bool:
        """In a blue-green rollout: it has the release in the idle slot, tested, and waits to be told to switch."""
        return self.recalled_at is None and self.switched_at is None and self.state == Phase.SELF_TESTED

    @property
    def back(self) -> bool:
        """It was recalled and serves the version before; nothing where there was none."""
        if self.recalled_at is None or not self.active:
            return self.recalled_at is not None
        if self.outcome in STAYED:
            return True
        went = self.state == Phase.COMMITTED and self.previous is not None
        confirmed = went or (self.state in ENDED and self.serving == self.previous)
        return confirmed and not self.owed


@dataclass(frozen=True, slots=True)
class Vitals:
    """What telemetry says of one version on some devices."""

    requests: int = 0
    failed: int = 0
    p95_ms: float | None = None
    restarts: int = 0  # most on one device
    labelled: int = 0
    correct: int = 0

    @property
    def error_ratio(self) -> float | None:
        return self.failed / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class DriftSign:
    """The worst drift of the release on its devices that the version before does not show as well."""

    psi: float
    feature: str
    device: str
    drifted: bool


@dataclass(frozen=True, slots=True)
class SiteLoad:
    """What rollouts draw over the line of one site."""

    in_flight_bytes: int = 0
    hourly_bytes: int = 0  # announced within the last hour


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What the webhook last said of a wave, or why it could not be asked."""

    wave: int
    result: Literal["pass", "wait", "fail"]
    reason: str
    since: datetime  # when this wave was first asked about without a pass since


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a rollout at one instant."""

    members: tuple[Member, ...]
    candidate: Vitals = Vitals()
    control: Vitals = Vitals()  # the version before, at the same time, on devices not yet reached
    drift: DriftSign | None = None
    elsewhere: int = 0  # online devices that other rollouts have at work
    sites: Mapping[str, SiteLoad] = field(default_factory=dict)  # what other rollouts draw
    crashing: frozenset[str] = frozenset()  # devices on which workers of the release died twice or more
    trials: Trials = field(default_factory=Trials)
    usual_failures: float | None = None  # share of devices that ended badly in rollouts before; None: too few to tell
    accuracy: float | None = None  # of the release on its reference data
    hook: HookAnswer | None = None

    def released(self, wave: int) -> tuple[Member, ...]:
        """The members of the waves up to `wave`."""
        return tuple([member for member in self.members if member.wave <= wave])
