"""Every number of a report in words: what it is, and what it means here.

I/O: none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.dashboard import drawing
from fleet.reports.content import Level, Number, Point
from fleet.telemetry.drift import Statistics
from fleet.telemetry.figures import MEANINGS, Figure
from fleet.telemetry.verdict import Rule, direction, severity

#: Effect sizes that are worth a look; docs/drift.md says where they come from.
KS_WATCH: Final = 0.1
WASSERSTEIN_WATCH: Final = 0.2
KL_WATCH: Final = 0.1
JS_WATCH: Final = 0.2
MISSING_WATCH: Final = 0.01


#: level -> tone, symbol and word of a pill
LEVELS: Final[Mapping[Level, tuple[str, str, str]]] = {
    "act": ("crit", "✖", "act"),
    "watch": ("warn", "▲", "watch"),
    "unknown": ("off", "…", "insufficient data"),
    "good": ("ok", "✔", "good"),
}


def where(scope: str) -> str:
    """A scope in words."""
    kind, _, name = scope.partition(":")
    return {"device": name, "site": f"site {name}", "hardware": f"hardware {name}"}.get(kind, "the whole fleet")


def at(moment: datetime) -> str:
    """`2026-11-26 10:45 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def many(count: int, one: str, more: str | None = None) -> str:
    """`1 device`, `3 devices`, `12 000 devices`."""
    return f"{drawing.figure(count, 0)} {one if count == 1 else more or one + 's'}"


def psi(value: float) -> str:
    """Two digits after the point, never below zero."""
    return f"{max(0.0, value):.2f}"


def insufficient(limit: float) -> str:
    """What stands instead of a grade."""
    return f"insufficient data: smallest detectable PSI = {limit:.2f}"


@dataclass(frozen=True, slots=True)
class Sized:
    """A feature over the whole time, and what is said of it now."""

    known: Statistics
    limit: float
    drifted: bool  # its newest verdict
    scopes: Sequence[str]  # where an alert about it is open


def feature_level(rule: Rule, one: Sized) -> Level:
    """What a feature asks of a person; alerts may ask for more."""
    size = one.known.psi_corrected
    graded = severity(rule, size) if size >= one.limit else None
    if one.drifted:
        return "act" if graded in ("high", "critical") else "watch"
    if one.known.samples < rule.min_samples or one.limit > rule.cuts["critical"]:
        return "unknown"
    return "good" if graded is None else "watch"


def feature_text(rule: Rule, name: str, one: Sized, peak: Point | None) -> str:
    """One or two sentences on a feature as a whole."""
    size, known = one.known.psi_corrected, one.known
    alerts = f" Alerts are open: {_places(one.scopes)}." if one.scopes else ""
    if known.samples < rule.min_samples:
        return f"{many(known.samples, 'sample')} of {rule.min_samples}; {insufficient(one.limit)}.{alerts}"
    most = "" if peak is None or peak.psi is None else f", at most {psi(peak.psi)} ({peak.start:%d %b %H:%M})"
    head = f"PSI {psi(size)} over the whole time{most}"
    if one.limit > rule.cuts["critical"]:
        return f"{head}; {insufficient(one.limit)}.{alerts}"
    if size < max(one.limit, rule.cuts["low"]):
        return f"{head}: as a whole as the reference.{alerts}"
    moved = direction(name, known.shift) if abs(known.shift) >= abs(known.spread) else "spread differently"
    alarm = alerts or " It is high, and no alarm."
    return f"{head}: {moved} than the reference.{alarm}"


def _places(scopes: Sequence[str]) -> str:
    """The first few, and how many more."""
    shown = ", ".join(where(scope) for scope in scopes[:3])
    return f"{shown} and {len(scopes) - 3} more" if len(scopes) > 3 else shown


def feature_numbers(rule: Rule, name: str, known: Statistics, limit: float, missing: int) -> Iterator[Number]:
    """Every number of one feature."""
    few = known.samples < rule.min_samples or limit > rule.cuts["critical"]
    yield _samples(rule, known, limit, few=few)
    yield _psi(rule, known, limit, few=few)
    yield _limit(rule, limit)
    yield from _effects(name, known, few=few)
    yield _missing(known.samples, missing)


def _samples(rule: Rule, known: Statistics, limit: float, *, few: bool) -> Number:
    here = insufficient(limit) if few else "enough to judge"
    meaning = (
        f"Values seen in this time, against {many(known.reference_samples, 'value')} of the reference; "
        f"{rule.min_samples} are needed. Here: {here}."
    )
    text = drawing.figure(known.samples, 0)
    return Number("samples", "Samples", known.samples, text, meaning, "unknown" if few else "good")


def _psi(rule: Rule, known: Statistics, limit: float, *, few: bool) -> Number:
    """The grade."""
    size = known.psi_corrected
    graded = severity(rule, size) if size >= limit else None
    what = "How differently the values are spread over the bins of the reference, less what chance adds."
    if few:
        here, level = insufficient(limit), "unknown"
    elif size < limit:
        here, level = f"good, chance and ordinary days explain up to {limit:.2f}", "good"
    elif graded is None:
        here, level = f"good, a change that is certain and below {rule.cuts['low']:.2f}, so too small to matter", "good"
    elif graded in ("high", "critical"):
        here, level = f"act, {graded} (from {rule.cuts[graded]:.2f} on)", "act"
    else:
        here, level = f"watch, {graded} (from {rule.cuts[graded]:.2f} on)", "watch"
    return Number("psi_corrected", "PSI", size, psi(size), f"{what} Here: {here}.", _level(level))


def _level(word: str) -> Level:
    return "act" if word == "act" else "watch" if word == "watch" else "unknown" if word == "unknown" else "good"


def _limit(rule: Rule, limit: float) -> Number:
    fine = limit <= rule.cuts["critical"]
    here = "good, every change that matters would show" if limit <= rule.cuts["low"] else (
        "changes smaller than this cannot be told from chance" if fine
        else "insufficient data, even a critical change could hide"
    )  # fmt: skip
    meaning = f"The smallest PSI that so many samples can tell from chance and ordinary days. Here: {here}."
    return Number("psi_limit", "Detectable PSI", limit, f"{limit:.3f}", meaning, "good" if fine else "unknown")


def _effects(name: str, known: Statistics, *, few: bool) -> Iterator[Number]:
    moved = direction(name, known.shift)
    for field, label, value, watch, what in (
        ("ks", "KS", known.ks, KS_WATCH, "The largest gap between the cumulative shares of both, 0 to 1."),
        ("wasserstein", "Wasserstein", known.wasserstein, WASSERSTEIN_WATCH,
         "How far values moved on average, in standard deviations of the reference."),
        ("kl", "KL", known.kl, KL_WATCH, "Kullback-Leibler, live against reference, in nats; chance is not taken out."),
        ("js_distance", "JS distance", known.js_distance, JS_WATCH,
         "Root of the Jensen-Shannon divergence, 0 to 0.83; chance is not taken out."),
    ):  # fmt: skip
        large = value >= watch
        here = f"watch, from {watch:g} on it is large" if large else f"good, below {watch:g}"
        here = "insufficient data, do not read much into it" if few else here
        level: Level = "unknown" if few else "watch" if large else "good"
        yield Number(field, label, value, f"{value:.3f}", f"{what} Here: {here}.", level)
    certain = abs(known.shift) >= 4
    here = "insufficient data" if few else f"watch, {moved} for certain" if certain else "good, no certain direction"
    meaning = f"Moved up or down, in standard errors; beyond 4 either way chance explains it no more. Here: {here}."
    yield Number(
        "shift", "Direction", known.shift, f"{known.shift:+.1f}", meaning,
        "unknown" if few else "watch" if certain else "good",
    )  # fmt: skip


def _missing(samples: int, missing: int) -> Number:
    share = missing / max(samples + missing, 1)
    level: Level = "watch" if share >= MISSING_WATCH else "good"
    here = f"watch, {share:.1%} of all" if level == "watch" else "good, next to none" if missing else "good, none"
    meaning = f"Values that were not there or no number, of all that should have been. Here: {here}."
    return Number("missing", "Missing", missing, drawing.figure(missing, 0), meaning, level)


def devices_number(reported: int, serving: int) -> Number:
    """How many of those that serve it reported."""
    share = reported / max(serving, 1)
    level: Level = "good" if share >= 0.95 else "watch"
    here = "good" if level == "good" else "watch, what the others see is not in here"
    meaning = f"Devices that sent anything, of those that serve this version or sent something about it. Here: {here}."
    return Number("devices_reported", "Devices that reported", reported, f"{reported} of {serving}", meaning, level)


def columns_number(filled: int, possible: int, kind: str) -> Number:
    """How much of the time is covered."""
    share = filled / max(possible, 1)
    level: Level = "good" if share >= 0.8 else "watch"
    here = "good" if level == "good" else "watch, the report knows only a part of the time"
    meaning = (
        f"Of all {kind}s of all devices, the share in which anything came; pauses in use count as gaps. Here: {here}."
    )
    return Number("coverage", "Time covered", share, drawing.percent(share), meaning, level)


def requests_numbers(requests: int, failed: int) -> Iterator[Number]:
    """Requests and failures."""
    yield Number("requests", "Requests", requests, drawing.figure(requests, 0),
                 "Requests that the windows of this time tell of. Here: "
                 + ("good." if requests else "insufficient data, no window is kept that long, or none came."),
                 "good" if requests else "unknown")  # fmt: skip
    share = failed / max(requests, 1)
    level: Level = "good" if share < 0.01 else "watch" if share < 0.05 else "act"
    yield Number("failed", "Failed requests", failed, f"{drawing.figure(failed, 0)} ({drawing.percent(share, 2)})",
                 f"Requests that ended in an error. Here: {level}.", level)  # fmt: skip


def shed_number(windows: int, devices: int) -> Number:
    """What devices threw away for want of room."""
    level: Level = "watch" if windows else "good"
    here = f"watch, of {many(devices, 'device')}; that time is not in here" if windows else "good, none"
    meaning = f"Telemetry windows that devices threw away, ever, because their outbox was full. Here: {here}."
    return Number("shed", "Windows thrown away", windows, drawing.figure(windows, 0), meaning, level)


def counted_numbers(levels: Sequence[Level]) -> Iterator[Number]:
    """How many features ask for what."""
    act, watch, unknown = (levels.count(word) for word in ("act", "watch", "unknown"))
    features = len(levels)
    yield Number("features_act", "Features to act on", act, f"{act} of {features}",
                 f"An alert is open and the change is high or critical. Here: {'act' if act else 'good, none'}.",
                 "act" if act else "good")  # fmt: skip
    yield Number("features_watch", "Features to watch", watch, f"{watch} of {features}",
                 "Changed beyond chance without a grave alarm. Here: "
                 + ("watch." if watch else "good, none."), "watch" if watch else "good")  # fmt: skip
    yield Number("features_unknown", "Features with too few samples", unknown, f"{unknown} of {features}",
                 "Nothing can be said of them yet. Here: " + ("insufficient data." if unknown else "good, none."),
                 "unknown" if unknown else "good")  # fmt: skip


def figure_level(one: Figure) -> Level:
    """What a figure of performance asks of a person; an estimate never asks for more than a second look."""
    if one.state == "worse":
        return "watch" if one.estimate else "act"
    return "watch" if one.state == "watch" else "good" if one.state == "ok" else "unknown"


def meaning(one: Figure) -> str:
    """What a figure is, where its name is one of those known."""
    what = MEANINGS.get(one.metric, f"{one.metric.capitalize().replace('_', ' ')}, as the model's makers defined it.")
    return what + (" Estimated without labels." if one.estimate else "")


def alerts_number(live: int, over: int) -> Number:
    """Alerts of the time."""
    level: Level = "act" if live else "watch" if over else "good"
    here = "act on those that are open" if live else "watch, all are over" if over else "good, none"
    meaning = f"Alerts about this model in this time; the rest is over. Here: {here}."
    return Number("alerts_open", "Open alerts", live, f"{live} of {live + over}", meaning, level)
