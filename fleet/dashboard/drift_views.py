"""Facts to the Drift page: one release at a time, how well it answers, what moved, on which devices.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.dashboard import distribution, drawing, facts
from fleet.telemetry.figures import MEANINGS, Figure, Standing

#: verdict -> tone, symbol, word; the gravest first
STATES: Final[Mapping[str, tuple[str, str, str]]] = {
    "drifted": ("crit", "x", "drifted"),
    "warning": ("warn", "tri", "warning"),
    "ok": ("ok", "check", "as the reference"),
    "collecting": ("info", "clock", "collecting"),
}
FIGURES: Final[Mapping[str, tuple[str, str, str]]] = {
    "worse": ("crit", "x", "worse"),
    "watch": ("warn", "tri", "a little worse"),
    "ok": ("ok", "check", "as before"),
    "collecting": ("info", "clock", "too few"),
    "unknown": ("off", "i", "nothing to compare"),
}
_GRAVEST: Final = tuple(STATES)
WIDTH: Final = 160.0  # of an interval


@dataclass(frozen=True, slots=True)
class Chosen:
    """A release that there are verdicts on."""

    model: str
    version: str
    current: bool
    tone: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure; positions of its interval, value and reference in a drawing of 160, None where there is none."""

    name: str
    value: str
    interval: str
    before: str
    tone: str
    symbol: str
    word: str
    text: str
    meaning: str
    span: tuple[float, float] | None
    at: float | None
    was: float | None


@dataclass(frozen=True, slots=True)
class Moved:
    """One feature of the fleet, or the worst one of a device."""

    name: str
    group: str
    tone: str
    symbol: str
    word: str
    psi: str
    samples: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class DriftPage:
    """The Drift page; without a release nothing was compared yet."""

    model: str
    version: str
    releases: tuple[Chosen, ...]
    tone: str
    symbol: str
    word: str
    words: str
    measured: tuple[Measured, ...]
    as_of: str
    features: tuple[Moved, ...]
    devices: tuple[Moved, ...]
    devices_drifted: int
    distribution: distribution.Drawn | None
    withdrawn: str | None = None  # why nobody gets the release any more


@dataclass(frozen=True, slots=True)
class Facts:
    """What `page` is made from."""

    states: Sequence[tuple[str, str, str]]  # model, version, the gravest verdict on it
    model: str
    version: str
    fleet: Sequence[facts.Drift]
    devices: Sequence[facts.Drift]  # the worst ones that are not as the reference
    drifted: int
    standing: Standing | None
    estimates: Sequence[Figure]
    feature: str | None
    limits: facts.Limits
    now: datetime
    withdrawn: str | None = None


def page(found: Facts) -> DriftPage:
    """The whole page."""
    state = next((it[2] for it in found.states if it[:2] == (found.model, found.version)), "collecting")
    tone, symbol, word = STATES.get(state, STATES["collecting"])
    features = sorted(found.fleet, key=lambda one: (_place(one.state), -(one.psi or 0.0), one.feature))
    standing = found.standing
    return DriftPage(
        model=found.model,
        version=found.version,
        releases=tuple(
            Chosen(model, version, (model, version) == (found.model, found.version), *STATES[kind][:2])
            for model, version, kind in found.states
        ),
        tone=tone,
        symbol=symbol,
        word=word,
        words=_words(found),
        measured=tuple(measured(one) for one in (*(standing.figures if standing else ()), *found.estimates)),
        as_of="" if standing is None else as_of(standing.as_of, found.now),
        features=tuple(_moved(one, one.feature) for one in features),
        devices=tuple(_moved(one, one.scope.removeprefix("device:")) for one in found.devices),
        devices_drifted=found.drifted,
        distribution=distribution.draw(found.fleet, found.feature, found.limits),
        withdrawn=found.withdrawn,
    )


def choose(states: Sequence[tuple[str, str, str]], model: str | None, version: str | None) -> tuple[str, str] | None:
    """The release that is asked for, else the one that is worst off; None when there is none like it."""
    fitting = [it for it in states if model in (None, "", it[0]) and version in (None, "", it[1])]
    return min(fitting, key=lambda it: _place(it[2]))[:2] if fitting else None


def _place(state: str) -> int:
    return _GRAVEST.index(state) if state in _GRAVEST else len(_GRAVEST)


def _words(found: Facts) -> str:
    drifted = [one.feature for one in found.fleet if one.state == "drifted"]
    if drifted:
        more = f" and {len(drifted) - 2} more" if len(drifted) > 2 else ""
        return f"{', '.join(drifted[:2])}{more} moved away from the reference on the whole fleet"
    if found.drifted:
        return f"{drawing.many(found.drifted, 'device')} with drift, the fleet as a whole as the reference"
    return "what the devices see is what the model was made for" if found.fleet else "nothing was compared yet"


def as_of(moment: datetime, now: datetime) -> str:
    """`as of 38 min ago`: in quiet serving a window is as long as an hour."""
    age = drawing.ago((now - moment).total_seconds())
    return "as of now" if age == "now" else f"as of {age} ago"


def measured(one: Figure) -> Measured:
    """One figure with its drawing."""
    tone, symbol, word = FIGURES[one.state]
    if one.estimate and tone == "crit":
        tone, symbol = "warn", "tri"
    known = [value for value in (one.low, one.high, one.value, one.reference) if value is not None]
    low, high = _scale(one.metric, known)

    def place(value: float | None) -> float | None:
        return None if value is None else round(4 + (WIDTH - 8) * (value - low) / (high - low), 1)

    left, right = place(one.low), place(one.high)
    return Measured(
        name=one.metric.replace("_", " ").capitalize() + (" (estimate)" if one.estimate else ""),
        value=one.written(one.value),
        interval=one.interval,
        before=one.written(one.reference),
        tone=tone,
        symbol=symbol,
        word=word,
        text=one.text,
        meaning=MEANINGS.get(one.metric, ""),
        span=None if left is None or right is None else (left, round(max(1.0, right - left), 1)),
        at=place(one.value),
        was=place(one.reference),
    )


def _scale(metric: str, known: Sequence[float]) -> tuple[float, float]:
    """From a little below the smallest to a little above the largest; ratios end at one."""
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = max(high - low, 0.02 * high, 1e-6) * 0.25
    return low - room, high + room if metric == "latency" else min(1.0, high + room) + 1e-9


def _moved(one: facts.Drift, name: str) -> Moved:
    tone, symbol, word = STATES.get(one.state, STATES["collecting"])
    history = [value for value in one.body.get("history", ()) if isinstance(value, (int, float))]
    collecting = one.psi is None or one.state == "collecting"
    return Moved(
        name=name,
        group=str(one.body.get("group", "")) or one.feature,
        tone=tone,
        symbol=symbol,
        word=word,
        psi=drawing.NONE if collecting or one.psi is None else f"{max(0.0, one.psi):.2f}",
        samples=drawing.figure(one.samples, 0),
        path=drawing.spark(history, 150, 24, 0.0, max([*history, 0.1])),
        text=str(one.body.get("text", "")),
    )
