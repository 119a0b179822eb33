"""Facts to the Fleet page: figures, wall, versions, activity, table. Values in, values out.

I/O: none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.dashboard import drawing, facts, series
from fleet.dashboard.conditions import (
    KEY,
    ORDER,
    SEVERE,
    SYMBOL,
    Condition,
    OpenAlert,
    active,
    condition,
    fresh,
    open_alerts,
)
from fleet.dashboard.table import Row, row
from shared.messages import Phase
from shared.sketches import merge_latency

_ROWS: Final = 500  # more than this is for the CLI, not for eyes


@dataclass(frozen=True, slots=True)
class Site:
    """A block of the wall."""

    name: str
    online: int
    total: int
    cells: tuple[tuple[str, Condition], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """One version in the field: how many devices serve it, and where its bar starts, of 1000."""

    version: str
    count: int
    tone: str
    left: float
    width: float
    withdrawn: str | None = None  # why nobody gets it any more


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the activity feed or of a timeline."""

    key: int
    level: str
    who: str
    text: str
    age: str
    at: str
    href: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """The rollout card of the Fleet page."""

    id: str
    model: str
    version: str
    words: str
    active: bool


@dataclass(frozen=True, slots=True)
class FleetView:
    """The Fleet page."""

    total: int
    online: int
    offline: str
    sites_count: int
    rate: str | None
    rate_spark: str
    rate_words: str
    p95: str | None
    p95_words: str
    alerts_open: int
    alerts_severe: int
    alerts_mild: int
    alerts: tuple[OpenAlert, ...]
    failing: tuple[str, ...]  # channels by which nobody is told now, and why
    running: Running | None
    sites: tuple[Site, ...]
    key: tuple[tuple[str, str, str], ...]
    versions: tuple[tuple[str, tuple[Share, ...]], ...]
    feed: tuple[Line, ...]
    rows: tuple[Row, ...]
    attention: int
    has_cpu: bool
    has_gpu: bool
    has_temperature: bool


def fleet(found: facts.Fleet) -> FleetView:
    """The whole page."""
    known = [device for device in found.devices if device.lifecycle != "revoked"]
    conditions = {device.id: condition(device, found) for device in known}
    online = sum(conditions[device.id].state not in ("off", "wait") for device in known)
    latest_of = {device.id: fresh(found.windows.get(device.id, ()), found.now) for device in known}
    latest = [window for device in known if (window := latest_of[device.id]) and conditions[device.id].state != "off"]
    rows = tuple(
        row(device, conditions[device.id], latest_of[device.id], found)
        for device in sorted(known, key=lambda one: (ORDER.index(conditions[one.id].state), one.id))
    )
    rates = series.throughput(found.windows, found.now)
    alerts = [alert for alert in found.alerts if alert.state in ("open", "escalated")]
    return FleetView(
        total=len(known),
        online=online,
        offline=_offline_words(known, conditions),
        sites_count=len({device.site for device in known if device.site}),
        rate=drawing.rate(rates[-1]) if rates else None,
        rate_spark=drawing.spark(rates, 92, 30, low=0, high=max([*rates, 1.0]) * 1.15),
        rate_words=_rate_words(latest, any(found.windows.values())),
        p95=drawing.milliseconds(merge_latency(window.latency.bins for window in latest).quantile_ms(0.95)),
        p95_words=_median_words(latest, any(found.windows.values())),
        alerts_open=len(alerts),
        alerts_severe=sum(alert.severity in SEVERE for alert in alerts),
        alerts_mild=sum(alert.severity not in SEVERE for alert in alerts),
        alerts=open_alerts(found.alerts, found.now),
        failing=tuple(f"{name} fails: {error}" for name, error in found.failing),
        running=_running(found),
        sites=_sites(known, conditions),
        key=_key(conditions.values()),
        versions=versions(known, found.rollouts, found.releases),
        feed=lines(found.events[:6], found.now),
        rows=rows[:_ROWS],
        attention=sum(one.condition.state in ("crit", "warn", "off", "wait") for one in rows),
        has_cpu=any(one.cpu for one in rows),
        has_gpu=any(one.gpu for one in rows),
        has_temperature=any(one.temperature for one in rows),
    )


def _sites(devices: Sequence[facts.Device], conditions: Mapping[str, Condition]) -> tuple[Site, ...]:
    grouped: defaultdict[str, list[facts.Device]] = defaultdict(list)
    for device in sorted(devices, key=lambda one: one.id):
        grouped[device.site].append(device)
    return tuple(
        Site(
            name=name or "No site",
            online=sum(conditions[one.id].state not in ("off", "wait") for one in many),
            total=len(many),
            cells=tuple((one.id, conditions[one.id]) for one in many),
        )
        for name, many in sorted(grouped.items(), key=lambda item: (not item[0], item[0]))
    )


def _key(conditions: Iterable[Condition]) -> tuple[tuple[str, str, str], ...]:
    """The wall's key: states that can always be met, and `pending` where somebody waits."""
    shown = {"ok", "can", "warn", "crit", "off"} | {one.state for one in conditions}
    return tuple((state, SYMBOL[state], word) for state, word in KEY.items() if state in shown)


def versions(
    devices: Sequence[facts.Device], rollouts: Sequence[facts.Rollout], releases: Sequence[facts.Release]
) -> tuple[tuple[str, tuple[Share, ...]], ...]:
    """For each model: which versions serve, newest first."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for device in devices:
        for model, version in device.serving.items():
            counted[model][version] += 1
    age = {(release.model, release.version): release.counter for release in releases}
    new = {(rollout.model, rollout.version) for rollout in active(rollouts)}
    gone = {(release.model, release.version): release.withdrawn for release in releases}
    return tuple((model, _shares(model, counted[model], age, new, gone)) for model in sorted(counted))


def _shares(
    model: str,
    counts: Counter[str],
    age: Mapping[tuple[str, str], int],
    new: set[tuple[str, str]],
    gone: Mapping[tuple[str, str], str | None],
) -> tuple[Share, ...]:
    total, left, shares = counts.total(), 0.0, []
    stable = next((version for version, _ in counts.most_common() if (model, version) not in new), None)
    for version in sorted(counts, key=lambda one: (-age.get((model, one), 0), one)):
        tone = "can" if (model, version) in new else "stable" if version == stable else "old"
        width = 1000 * counts[version] / total
        why = gone.get((model, version))
        shares.append(Share(version, counts[version], tone, round(left, 1), round(width, 1), why))
        left += width
    return tuple(shares)


def lines(events: Iterable[facts.Event], now: datetime) -> tuple[Line, ...]:
    """Events as lines; the subject stands in front unless the text names it already."""
    return tuple(
        Line(
            key=event.sequence,
            level=event.level if event.level in ("ok", "info", "warn", "crit") else "info",
            who="" if event.subject in event.text else event.subject,
            text=event.text,
            age=drawing.ago((now - event.at).total_seconds()),
            at=event.at.isoformat(timespec="seconds"),
            href=f"/rollouts/{event.rollout}" if event.rollout else None,
        )
        for event in events
    )


def _offline_words(devices: Sequence[facts.Device], conditions: Mapping[str, Condition]) -> str:
    away = [device for device in devices if conditions[device.id].state == "off"]
    waiting = sum(conditions[device.id].state == "wait" for device in devices)
    places = len({device.site for device in away if device.site})
    words = [f"{len(away)} offline" + (f" at {drawing.many(places, 'site')}" if places else "")] if away else []
    words += [f"{waiting} to accept"] if waiting else []
    return ", ".join(words) or ("all of them" if devices else "no devices yet")


def _rate_words(latest: Sequence[facts.Window], ever: bool) -> str:
    if not latest:
        return "no windows lately" if ever else "no windows yet"
    failed = sum(window.failed for window in latest)
    asked = sum(window.requests for window in latest)
    return "none failed" if not failed else f"{drawing.percent(failed / max(1, asked), 2)} failed"


def _median_words(latest: Sequence[facts.Window], ever: bool) -> str:
    median = merge_latency(window.latency.bins for window in latest).quantile_ms(0.5)
    if median is None:
        return "no requests lately" if ever else "no requests yet"
    return f"median {drawing.milliseconds(median)} ms"


def _running(found: facts.Fleet) -> Running | None:
    going = active(found.rollouts)
    if not found.rollouts:
        return None
    rollout = (going or list(found.rollouts))[0]
    mine = [one for one in found.deployments if one.rollout == rollout.id]
    done = sum(one.state == Phase.COMMITTED for one in mine)
    more = f", {done} of {drawing.many(len(mine), 'device')}" if mine else ""
    words = rollout.state.replace("-", " ") + (more if going else "")
    return Running(rollout.id, rollout.model, rollout.version, words, bool(going))
