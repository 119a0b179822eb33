"""Facts to the Rollouts list and the Rollout page. Values in, values out.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.dashboard import distribution, drawing, facts, series
from fleet.dashboard.rollout_actions import Action, actions
from fleet.dashboard.views import Line, lines
from fleet.rollouts.actions import E_ROLLOUT_STOPPED
from fleet.rollouts.progress import DeploymentView, GateView, RolloutView, WaveView
from shared.messages import Phase

#: State -> tone and symbol of the pill.
STATES: Final[Mapping[str, tuple[str, str]]] = {
    "running": ("can", "play"),
    "paused": ("warn", "pause"),
    "completed": ("ok", "check"),
    "aborting": ("warn", "x"),
    "aborted": ("warn", "x"),
    "rolling-back": ("crit", "undo"),
    "rolled-back": ("crit", "undo"),
    "failed": ("crit", "x"),
}
#: The way of one device, in the words of its reports; `queued` is before the first.
STEPS: Final = (
    Phase.VERIFIED,
    Phase.FETCHING,
    Phase.ASSEMBLED,
    Phase.STAGED,
    Phase.SELF_TESTED,
    Phase.PROBATION,
    Phase.COMMITTED,
)
_BAD: Final = frozenset({Phase.REFUSED, Phase.FAILED, Phase.ROLLED_BACK, "timed-out"})
_CARDS: Final = 60


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the Rollouts list."""

    id: str
    model: str
    version: str
    strategy: str
    state: str
    tone: str
    symbol: str
    reason: str
    done: int
    failed: int
    total: int
    width: float
    by: str
    age: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One wave in the rail. `tone` is done, run, paused, bad or todo."""

    index: int
    name: str
    target: str
    tone: str
    current: bool
    width: float
    ring: float
    words: str


@dataclass(frozen=True, slots=True)
class Card:
    """One device: every step is done (`d`), under way (`c`) or ahead."""

    device: str
    site: str
    word: str
    tone: str
    steps: tuple[tuple[str, float], ...]
    below: str
    note: str


@dataclass(frozen=True, slots=True)
class Gate:
    """One line of the gates table."""

    name: str
    result: str
    value: str
    reference: str
    rule: str
    detail: str
    path: str
    limit_y: float | None
    tone: str


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """The Rollout page."""

    id: str
    model: str
    version: str
    previous: str
    state: str
    tone: str
    symbol: str
    words: str
    why: str | None
    why_tone: str
    next_step: str
    actions: tuple[Action, ...]
    stages: tuple[Stage, ...]
    cards_title: str
    cards: tuple[Card, ...]
    cards_more: int
    gates: tuple[Gate, ...]
    timeline: tuple[Line, ...]
    distribution: distribution.Drawn | None
    chart: Mapping[str, object]
    limit_words: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What `page` is made from."""

    view: RolloutView
    now: datetime
    windows: Mapping[str, Sequence[facts.Window]]
    drift: Sequence[facts.Drift]
    feature: str | None
    limits: facts.Limits


def listed(
    rollouts: Sequence[facts.Rollout], tallies: Mapping[str, Mapping[str, int]], now: datetime
) -> tuple[Listed, ...]:
    """Rollouts as lines, those under way first."""
    found = []
    for rollout in sorted(rollouts, key=lambda one: one.state in facts.OVER):
        tally = tallies.get(rollout.id, {})
        total = sum(tally.values())
        done = 0 if rollout.state in ("rolling-back", "rolled-back") else tally.get(Phase.COMMITTED, 0)
        tone, symbol = STATES.get(rollout.state, ("off", "i"))
        found.append(
            Listed(
                id=rollout.id,
                model=rollout.model,
                version=rollout.version,
                strategy=rollout.strategy,
                state=rollout.state.replace("-", " "),
                tone=tone,
                symbol=symbol,
                reason=rollout.reason or "",
                done=done,
                failed=sum(number for state, number in tally.items() if state in _BAD),
                total=total,
                width=round(100 * done / total, 1) if total else 0.0,
                by=rollout.created_by,
                age=drawing.ago((now - rollout.created_at).total_seconds()),
            )
        )
    return tuple(found)


def page(found: Facts) -> RolloutPage:
    """The whole page."""
    view, now = found.view, found.now
    tone, symbol = STATES.get(view.state, ("off", "i"))
    previous = ", ".join(view.previous)
    title, shown = _shown(view)
    chart, limit_words = _chart(found)
    return RolloutPage(
        id=view.id,
        model=view.model,
        version=view.version,
        previous=previous,
        state=view.state.replace("-", " "),
        tone=tone,
        symbol=symbol,
        words=_words(view, now),
        why=_why(view),
        why_tone=tone if tone in ("warn", "crit") else "warn",
        next_step=_next(view),
        actions=actions(view),
        stages=tuple(_stage(wave, view) for wave in view.waves),
        cards_title=title,
        cards=tuple(card(one, now) for one in shown[:_CARDS]),
        cards_more=max(0, len(shown) - _CARDS),
        gates=tuple(_gate(one) for one in view.gates),
        timeline=lines(
            (facts.Event(one.sequence, one.at, "", one.level, one.subject, one.text) for one in view.timeline[:9]),
            now,
        ),
        distribution=distribution.draw(found.drift, found.feature, found.limits),
        chart=chart,
        limit_words=limit_words,
    )


def _words(view: RolloutView, now: datetime) -> str:
    total, done = view.counts.total, view.counts.committed
    share = f" ({drawing.percent(done / total)})" if total else ""
    began = drawing.ago((now - view.created_at).total_seconds())
    when = "just now" if began == "now" else f"{began} ago"
    return f"{done} of {drawing.many(total, 'device')}{share}, started by {view.created_by} {when}"


def _why(view: RolloutView) -> str | None:
    if view.state in ("running", "completed"):
        return None
    return view.reason or {"paused": "Paused by a person."}.get(view.state)


def _next(view: RolloutView) -> str:
    """What to type, where the state asks for something."""
    return {
        "paused": f"flotilla rollout resume {view.id}",
        "aborted": f"flotilla rollout show {view.id}",
        "rolled-back": f"flotilla rollout show {view.id}",
        "failed": f"flotilla rollout show {view.id}",
    }.get(view.state, "")


def _stage(wave: WaveView, view: RolloutView) -> Stage:
    tone = {
        "done": "done",
        "running": "run",
        "baking": "run",
        "paused": "paused",
        "failed": "bad",
        "stopped": "bad" if wave.failed else "todo",
    }.get(wave.state, "todo")
    share = round(100 * wave.done / wave.total, 1) if wave.total else 0.0
    ring = share
    if wave.state == "baking" and view.bake_left_seconds is not None and view.bake_seconds > 0:
        ring = round(100 * (1 - view.bake_left_seconds / view.bake_seconds), 1)
    size = drawing.many(wave.total, "device")
    words = wave.sub if wave.state != "waiting" else ", ".join(filter(None, (size, wave.sub)))
    return Stage(
        wave.index, wave.name, wave.target, tone, wave.state in ("running", "baking", "paused"), share, ring, words
    )


def _shown(view: RolloutView) -> tuple[str, list[DeploymentView]]:
    """The devices worth a card: those of the newest wave, or all that were touched once it is over."""
    trouble = {one.device for one in view.deployments if _bad(one)}
    if view.state in ("running", "paused"):
        picked = [one for one in view.deployments if one.wave == max(1, view.wave) or one.device in trouble]
        name = next((wave.name for wave in view.waves if wave.index == max(1, view.wave)), "")
        title = f"Devices of wave {max(1, view.wave)}{': ' if name else ''}{name}"
    else:
        picked = [one for one in view.deployments if one.state not in ("queued", Phase.CANCELLED)]
        title = "Devices that were touched"
    return title, sorted(picked, key=lambda one: (one.device not in trouble, one.wave, one.device))


def _bad(one: DeploymentView) -> bool:
    """It ended badly by itself; one that the rollout took back did nothing wrong."""
    return one.state in _BAD and not _taken_back(one)


def _taken_back(one: DeploymentView) -> bool:
    return one.state == Phase.ROLLED_BACK and one.reason == E_ROLLOUT_STOPPED


def card(one: DeploymentView, now: datetime) -> Card:
    """A device with the phases that it reported; bytes only where it reported bytes."""
    tone = "ok" if one.state == Phase.COMMITTED else "crit" if _bad(one) else "warn" if _taken_back(one) else "off"
    if one.state in STEPS[:-1] or one.state in (Phase.ANNOUNCED, Phase.SHADOWING, "rolling-back"):
        tone = "can"
    part, below = 0.0, ""
    if one.state == Phase.FETCHING and one.total_bytes and one.fetched_bytes is not None:
        part = min(1.0, one.fetched_bytes / one.total_bytes)
        below = drawing.part_of(one.fetched_bytes, one.total_bytes)
    elif one.state == Phase.SHADOWING and one.shadow:
        below = one.shadow
    elif one.state not in ("queued", Phase.COMMITTED):
        below = drawing.ago((now - one.since).total_seconds())
    at = Phase.SELF_TESTED if one.state == Phase.SHADOWING else one.state  # what it was found fit for
    place = next((index for index, step in enumerate(STEPS) if at == step), -1)
    steps = tuple(
        (
            "d" if index < place or one.state == Phase.COMMITTED else "c" if index == place else "",
            part if index == place else 0.0,
        )
        for index in range(len(STEPS))
    )
    note = ": ".join(filter(None, (one.reason, one.detail))) if _bad(one) else ""
    word = "healthy" if one.state == Phase.COMMITTED else one.state
    if _taken_back(one):
        word = f"back on {one.previous}" if one.previous else "taken back"
    return Card(one.device, one.site, word if one.online else f"{word}, offline", tone, steps, below, note)


def _gate(one: GateView) -> Gate:
    tone = {"pass": "ok", "fail": "crit"}.get(one.result, "info")
    limit = None if one.limit is None or not one.history else drawing.level(one.limit, one.low, one.high)
    path = drawing.spark(one.history, 150, 24, one.low, one.high)
    name = one.name.capitalize().replace("psi", "PSI")
    return Gate(
        name,
        one.result,
        one.value_text,
        one.reference_text,
        one.rule,
        one.detail,
        path,
        limit,
        tone,
    )


def _chart(found: Facts) -> tuple[Mapping[str, object], str]:
    """The numbers of the latency chart. A limit far above every value is told in words, not drawn."""
    view = found.view
    times, new, old = series.latency(found.windows, view.model, view.version, view.previous)
    top = max((value for value in (*new, *old) if value is not None), default=0.0)
    gate = next((one.limit for one in view.gates if "latency" in one.name and one.limit is not None), None)
    limit = found.limits.latency_ms if gate is None else gate
    drawn = limit if top and limit <= 3 * top else None
    words = f"limit {drawing.figure(limit, 0 if limit >= 10 else 1)} ms" + ("" if drawn else ", far above")
    return {"t": times, "new": new, "old": old, "limit": drawn}, words
