"""What people see of one rollout: values for the API, the dashboard and `rollout watch`.

`reading.rollout_view` gathers the facts and calls `view`; all words and numbers are made here.

I/O: none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from fleet.rollouts.gate import Check
from fleet.rollouts.states import (
    ENDED,
    MOVES,
    QUEUED,
    STAYED,
    TERMINAL,
    Event,
    Evidence,
    Member,
    Rollout,
    State,
)
from shared.messages import Phase
from shared.shadow import in_words

#: Checks whose limit is the least that must be reached.
_LEAST: Final = frozenset({"success", "golden agreement", "accuracy", "shadow agreement"})

WaveState = Literal["done", "running", "baking", "paused", "waiting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class WaveView:
    """One wave. `done` counts devices that committed, `failed` those that ended otherwise."""

    index: int  # from 1
    name: str  # Canary, Early, Half, Fleet, Batch 2
    target: str  # `1 device`, `25 %`: how far the rollout reaches with this wave
    total: int
    done: int
    failed: int
    state: WaveState
    sub: str  # `3/3 healthy, baked 30 min`


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """One device of the rollout. `state`: queued, a phase of an update, timed-out, rolling-back."""

    device: str
    site: str
    wave: int  # from 1
    state: str
    reason: str | None  # a code
    detail: str | None
    since: datetime
    previous: str | None
    touched: bool  # it was told of the release
    online: bool
    fetched_bytes: int | None
    total_bytes: int | None
    waits_for: str | None = None  # why it was not told yet, or does not switch yet
    shadow: str = ""  # what it compared of the release and the version before, in words
    sources: Mapping[str, int] = field(default_factory=dict)  # bytes that came, by source, as it counted them


@dataclass(frozen=True, slots=True)
class GateView:
    """One condition that must hold. `history` is oldest first; `low` and `high` are the range to draw it in."""

    name: str
    result: Literal["pass", "wait", "fail"]
    value: float | None
    value_text: str
    reference: float | None  # of the version before, at the same time
    reference_text: str
    limit: float | None
    rule: str  # `≤ 5 %`
    detail: str
    history: tuple[float, ...]
    low: float
    high: float
    e_value: float | None = None  # of comparisons: evidence of harm, which stops the rollout at `e_limit`
    e_limit: float | None = None
    p: float | None = None  # 1 / e_value; holds however often one looks


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of the rollout, newest first in the view."""

    sequence: int
    at: datetime
    level: str  # ok, info, warn, crit
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class CountsView:
    """Devices of the rollout by how they stand; they add up to `total`."""

    total: int
    queued: int
    running: int
    committed: int
    failed: int  # refused, failed, rolled back by themselves, timed out, cancelled on the device
    rolled_back: int  # taken back by the rollout
    untouched: int  # never told, and never will be


@dataclass(frozen=True, slots=True)
class BytesView:
    """What the rollout's devices were to fetch, and what came: by source, as they counted it."""

    planned: int
    fetched: int  # of what was planned
    by_source: Mapping[str, int]  # peer, cache, manager, mqtt, bundle; more than `fetched` where something came twice


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The whole of one rollout."""

    id: str
    model: str
    version: str
    previous: tuple[str, ...]  # versions that its devices served before
    strategy: str
    state: str
    reason: str | None
    since: datetime
    created_by: str
    created_at: datetime
    updated_at: datetime
    wave: int  # from 1: the newest one released; 0 before the first
    bake_seconds: float
    bake_left_seconds: float | None  # None unless the wave bakes now
    auto_rollback: bool
    counts: CountsView
    waves: tuple[WaveView, ...]
    deployments: tuple[DeploymentView, ...]
    gates: tuple[GateView, ...]
    timeline: tuple[TimelineEntry, ...]
    actions: tuple[str, ...]  # what may be asked now: approve, pause, resume, promote, abort, rollback
    on_failure: tuple[str, ...] = ()  # what a stop does when nobody says otherwise
    ending: tuple[str, ...] = ()  # what the stop that was decided does
    priority: str = "normal"
    approved_by: tuple[str, ...] = ()
    window: str | None = None  # when devices swap; None: at once
    bytes: BytesView | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What `view` needs beside the engine's own values."""

    rollout: Rollout
    evidence: Evidence
    checks: Sequence[Check]
    histories: Mapping[str, tuple[float, ...]]  # check name -> values over time
    waits: Mapping[str, str]  # device -> what it waits for
    timeline: Sequence[TimelineEntry]
    created_by: str
    created_at: datetime
    updated_at: datetime
    now: datetime


def view(facts: Facts) -> RolloutView:
    """All of one rollout, in the order in which it is shown."""
    rollout, members = facts.rollout, facts.evidence.members
    left = rollout.bake_left(facts.now) if rollout.state is State.RUNNING else None
    ended = tuple(sorted(members, key=lambda member: (member.wave, member.device)))
    return RolloutView(
        id=rollout.id,
        model=rollout.model,
        version=rollout.version,
        previous=tuple(sorted({member.previous for member in members if member.previous})),
        strategy=rollout.strategy,
        state=rollout.state,
        reason=rollout.reason,
        since=rollout.since,
        created_by=facts.created_by,
        created_at=facts.created_at,
        updated_at=facts.updated_at,
        wave=rollout.wave + 1,
        bake_seconds=rollout.bake_seconds,
        bake_left_seconds=None if left is None else left.total_seconds(),
        auto_rollback=rollout.auto_rollback,
        on_failure=tuple(rollout.policy),
        ending=tuple(rollout.ending),
        priority=rollout.priority,
        approved_by=rollout.approved_by,
        counts=counts(members),
        waves=waves(rollout, members, facts.now),
        deployments=tuple(_deployment(member, facts.waits.get(member.device)) for member in ended),
        gates=tuple(gate(check, facts.histories.get(check.name, ())) for check in facts.checks),
        timeline=tuple(facts.timeline),
        actions=actions(rollout),
        window=None if rollout.window is None else rollout.window.text(),
        bytes=traffic(members),
    )


def traffic(members: Sequence[Member]) -> BytesView:
    """The downloads of all devices together."""
    by_source: Counter[str] = Counter()
    for member in members:
        by_source.update(member.sources)
    planned = sum(member.total_bytes or 0 for member in members)
    return BytesView(planned, sum(member.fetched_bytes or 0 for member in members), dict(sorted(by_source.items())))


def actions(rollout: Rollout) -> tuple[str, ...]:
    """What a person may ask of the rollout now."""
    moves = MOVES[rollout.state]
    possible = {
        "approve": Event.APPROVE in moves,
        "pause": Event.PAUSE in moves,
        "resume": Event.RESUME in moves,
        "promote": rollout.state is State.RUNNING and not rollout.promoted,
        "abort": Event.STOP in moves,
        "rollback": Event.RECALL in moves,
    }
    return tuple(name for name, may in possible.items() if may)


def shown(member: Member) -> tuple[str, str | None, str | None]:
    """State, reason and detail of one device, both ways taken together."""
    if member.recalled_at is None:
        return member.state, member.reason, member.detail
    if member.outcome in STAYED:
        return member.outcome, member.outcome_reason, member.outcome_detail
    if member.state in ENDED and not member.owed and not member.back:
        return member.state, member.reason, member.detail
    why = member.outcome_reason or "E_ROLLOUT_STOPPED"
    went = f"back to {member.previous}" if member.previous else "called off before it served"
    return str(Phase.ROLLED_BACK if member.back else State.ROLLING_BACK), why, member.outcome_detail or went


def counts(members: Sequence[Member]) -> CountsView:
    """Devices by how they stand."""
    kinds = [_kind(member) for member in members]
    return CountsView(
        total=len(kinds),
        queued=kinds.count("queued"),
        running=kinds.count("running"),
        committed=kinds.count("committed"),
        failed=kinds.count("failed"),
        rolled_back=kinds.count("rolled-back"),
        untouched=kinds.count("untouched"),
    )


def _kind(member: Member) -> str:
    if not member.touched:
        return "queued" if member.state == QUEUED else "untouched"
    if member.recalled_at is not None and member.outcome not in STAYED:
        return "rolled-back" if member.back else "running"
    if member.forward == Phase.COMMITTED:
        return "committed"
    return "failed" if member.ended else "queued" if member.state == QUEUED else "running"


_GOING: Final = frozenset({State.RUNNING, State.PAUSED, State.AWAITING_APPROVAL})


def waves(rollout: Rollout, members: Sequence[Member], now: datetime) -> tuple[WaveView, ...]:
    """Every wave with its progress."""
    found = []
    for index, wave in enumerate(rollout.waves):
        mine = [member for member in members if member.wave == index]
        done = sum(member.forward == Phase.COMMITTED for member in mine)
        failed = sum(member.touched and member.ended and member.forward != Phase.COMMITTED for member in mine)
        state = _wave_state(rollout, index, failed)
        sub = _sub(rollout, state, f"{done}/{len(mine)} healthy", failed, now)
        found.append(WaveView(index + 1, wave.name, wave.target, len(mine), done, failed, state, sub))
    return tuple(found)


def _wave_state(rollout: Rollout, index: int, failed: int) -> WaveState:
    if index > rollout.wave:
        return "waiting" if rollout.state in _GOING else "stopped"
    if rollout.state is State.COMPLETED or (index < rollout.wave and rollout.state in _GOING):
        return "done"
    match rollout.state:
        case State.AWAITING_APPROVAL:
            return "done"
        case State.RUNNING:
            return "running" if rollout.baking_since is None else "baking"
        case State.PAUSED:
            return "paused"
        case _:
            return "failed" if failed else "stopped"


def _sub(rollout: Rollout, state: WaveState, healthy: str, failed: int, now: datetime) -> str:
    bake = span(rollout.bake_seconds) if rollout.bake_seconds > 0 else ""
    wrong = f", {failed} failed" if failed else ""
    match state:
        case "done":
            return f"{healthy}{wrong}" + (f", baked {bake}" if bake else "")
        case "running":
            return f"{healthy}{wrong}" + (f", then bake {bake}" if bake and rollout.bakes_at_all else "")
        case "baking":
            left = rollout.bake_left(now)
            return f"{healthy}{wrong}" + (f", bake {span(left.total_seconds())} left" if left else "")
        case "paused":
            return f"{healthy}{wrong}, paused"
        case "waiting":
            return f"bake {bake}" if bake else ""
        case "failed":
            return f"{healthy}{wrong}"
        case "stopped":
            return "not started" if healthy.startswith("0/") else healthy


def _deployment(member: Member, waits_for: str | None) -> DeploymentView:
    state, reason, detail = shown(member)
    return DeploymentView(
        device=member.device,
        site=member.site,
        wave=member.wave + 1,
        state=state,
        reason=reason,
        detail=detail,
        since=member.since,
        previous=member.previous,
        touched=member.touched,
        online=member.online,
        fetched_bytes=member.fetched_bytes,
        total_bytes=member.total_bytes,
        waits_for=waits_for,
        shadow="" if member.shadow is None else in_words(member.shadow),
        sources=member.sources,
    )


def gate(check: Check, history: tuple[float, ...]) -> GateView:
    """One condition in words."""
    drawn = [*history, *(number for number in (check.value, check.limit) if number is not None)]
    sign = "≥" if check.name in _LEAST else "≤"
    return GateView(
        name=check.name,
        result=check.result.value,
        value=check.value,
        value_text=amount(check.value, check.unit),
        reference=check.reference,
        reference_text=amount(check.reference, check.unit),
        limit=check.limit,
        rule="–" if check.limit is None else f"{sign} {amount(check.limit, check.unit)}",
        detail=check.detail,
        history=history,
        low=0.0,
        high=max(drawn, default=1.0) * 1.1 or 1.0,
        e_value=check.e_value,
        e_limit=check.e_limit,
        p=check.p,
    )


def amount(value: float | None, unit: str) -> str:
    """A number with its unit: `27.2 ms`, `0.02 %`, `0.06`, `3`; a dash for None."""
    if value is None:
        return "–"
    match unit:
        case "ratio":
            return f"{value * 100:.2f}".rstrip("0").rstrip(".") + " %"
        case "ms":
            return f"{value:.1f}".removesuffix(".0") + " ms"
        case "psi":
            return f"{value:.2f}"
        case "times":
            return f"{value:.2f} x"
        case _:
            return f"{value:g}"


def span(seconds: float) -> str:
    """A length of time: `30 s`, `5 min`, `2.5 h`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"


def over(rollout_view: RolloutView) -> bool:
    """Nothing more will happen by itself."""
    return rollout_view.state in set(TERMINAL)
