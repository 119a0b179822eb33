"""Facts to a report. Lists are cut here, so that every renderer shows the same and no file grows with the fleet.

I/O: none.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from fleet.reports import phrases
from fleet.reports.comparing import Compared, Device, statistics
from fleet.reports.content import (
    CELLS,
    Alert,
    Coverage,
    Feature,
    Level,
    Number,
    Point,
    Report,
    Row,
    Silent,
    Strip,
    gravest,
)
from fleet.reports.facts import Facts, Subject
from fleet.telemetry.drift import Statistics
from fleet.telemetry.figures import Figure

FEATURES: Final = 20
SITES: Final = 30
DEVICES: Final = 40
ALERTS: Final = 40
SILENT: Final = 20
TEXT: Final = 400  # characters of an alert


def compose(facts: Facts, made_at: datetime) -> Report:
    """The report."""
    subject = facts.subject
    features = _features(facts)
    levels = [one.level for one in features]
    alerts = sorted(facts.alerts, key=lambda one: (one.resolved_at is not None, -one.opened_at.timestamp()))
    live = [one for one in alerts if one.resolved_at is None]
    level = gravest([*levels, *_of_alerts(live), *_of_figures(facts.performance.figures)])
    headline, advice = _head(facts, features, live, level)
    return Report(
        model=subject.model,
        version=subject.version,
        scope=subject.scope,
        where=phrases.where(subject.scope),
        since=subject.begin,
        until=subject.end,
        made_at=made_at,
        column_seconds=(subject.calendar.length * subject.columns.hours).total_seconds(),
        level=level,
        headline=headline,
        advice=advice,
        others=tuple(facts.others[:8]),
        cuts=tuple(sorted(facts.rule.cuts.items(), key=lambda item: item[1])),
        numbers=(
            *phrases.counted_numbers(levels),
            phrases.alerts_number(len(live), len(alerts) - len(live)),
        ),
        features=tuple(features[:FEATURES]),
        features_more=max(0, len(features) - FEATURES),
        columns=tuple(column_starts(subject)),
        strips=tuple(_strips(facts)),
        alerts=tuple(_short(one) for one in alerts[:ALERTS]),
        alerts_more=max(0, len(alerts) - ALERTS),
        performance=facts.performance,
        coverage=_coverage(facts),
    )


def column_starts(subject: Subject) -> list[datetime]:
    """When each column begins."""
    columns = subject.columns
    return [subject.calendar.begin(columns.first + place * columns.hours) for place in range(columns.number)]


def _short(alert: Alert) -> Alert:
    cut = alert.text if len(alert.text) <= TEXT else alert.text[: TEXT - 1] + "…"
    return Alert(alert.id, alert.kind, alert.scope, alert.severity, alert.state, cut, alert.opened_at,
                 alert.resolved_at)  # fmt: skip


def _features(facts: Facts) -> list[Feature]:
    """The gravest first, then by size."""
    known = statistics(facts.whole, facts.layout, facts.rule)
    found = [_feature(facts, name, known[name]) for name in facts.layout.names if name in known]
    order: tuple[Level, ...] = ("act", "watch", "good", "unknown")
    return sorted(found, key=lambda one: (order.index(one.level), -_size(one), one.name))


def _size(one: Feature) -> float:
    peak = _peak(one.timeline)
    return 0.0 if peak is None else peak.psi or 0.0


def _feature(facts: Facts, name: str, known: Statistics) -> Feature:
    whole, layout, rule = facts.whole, facts.layout, facts.rule
    at, place, reference = layout.names.index(name), layout.places[name], layout.references[name]
    limit = float(whole.total_limit[at])
    total = whole.counts.sum(axis=0)
    live = [(scope, one) for scope, one in _alerts_of(facts, name) if one.resolved_at is None]
    alarms = _columns_of(facts, [one for scope, one in _alerts_of(facts, name) if scope == facts.subject.scope])
    points = tuple(
        _point(whole, at, column, start, alarm=column in alarms)
        for column, start in enumerate(column_starts(facts.subject))
    )
    sized = phrases.Sized(known, limit, drifted=facts.states.get(name) == "drifted", scopes=[it for it, _ in live])
    return Feature(
        name=name,
        group=reference.group,
        kind=reference.kind,
        level=gravest([phrases.feature_level(rule, sized), *_of_alerts([one for _, one in live])]),
        text=phrases.feature_text(rule, name, sized, _peak(points)),
        numbers=tuple(phrases.feature_numbers(rule, name, known, limit, int(total[place.stop]))),
        edges=reference.edges,
        reference=tuple(whole.reference[place].tolist()),
        live=tuple(total[place].tolist()),
        timeline=points,
    )


def _alerts_of(facts: Facts, feature: str) -> list[tuple[str, Alert]]:
    """Alerts about a feature, in the scope of the report and beneath it."""
    return [(scope, one) for scope, many in facts.alerted.items() for name, one in many if name == feature]


def _peak(points: Sequence[Point]) -> Point | None:
    """The column with the largest PSI that can be told."""
    return max((one for one in points if one.cell not in ("none", "few")), key=lambda one: one.psi or 0.0, default=None)


def _point(found: Compared, at: int, column: int, start: datetime, *, alarm: bool) -> Point:
    samples = int(found.samples[column, at])
    return Point(
        start=start,
        samples=samples,
        psi=float(found.psi[column, at]) if samples else None,
        limit=float(found.limit[column, at]) if samples else None,
        cell=CELLS[int(found.cells[column, at])],
        alarm=alarm,
    )


def _columns_of(facts: Facts, alerts: Sequence[Alert]) -> frozenset[int]:
    """Columns in which one of the alerts was open."""
    calendar, columns = facts.subject.calendar, facts.subject.columns
    found: set[int] = set()
    for one in alerts:
        first = (calendar.hour(one.opened_at) - columns.first) // columns.hours
        last = (calendar.hour(one.resolved_at or facts.subject.end) - columns.first) // columns.hours
        found.update(range(max(0, first), min(columns.number - 1, last) + 1))
    return frozenset(found)


def _strips(facts: Facts) -> list[Strip]:
    found = []
    if len(facts.sites) > 1:
        rows = [_site_row(facts, name, one) for name, one in facts.sites.items()]
        rows.sort(key=_rank)
        found.append(Strip("Sites", tuple(rows[:SITES]), max(0, len(rows) - SITES)))
    devices = sorted(facts.devices, key=lambda one: (-one.rank[0], -one.rank[1], one.name))
    rows = [_device_row(facts, one) for one in devices[:DEVICES]]
    found.append(Strip("Devices", tuple(rows), max(0, len(devices) - DEVICES)))
    return found


def _rank(row: Row) -> tuple[int, float, str]:
    worst = max((CELLS.index(cell) for cell in row.cells), default=0)
    return -worst, -(row.psi or 0.0), row.name


def _site_row(facts: Facts, name: str, found: Compared) -> Row:
    worst = found.worst()
    return Row(
        name=name or "no site",
        cells=found.column_cells(),
        alarms=_columns_of(facts, [one for _, one in facts.alerted.get(f"site:{name}", ())]),
        samples=int(found.total_samples.max(initial=0)),
        worst="" if worst is None else facts.layout.names[worst],
        psi=None if worst is None else float(found.total_psi[worst]),
    )


def _device_row(facts: Facts, one: Device) -> Row:
    alarms = _columns_of(facts, [alert for _, alert in facts.alerted.get(f"device:{one.name}", ())])
    return Row(one.name, one.cells, alarms, one.samples, one.worst, one.psi)


def _coverage(facts: Facts) -> Coverage:
    reported = {one.name for one in facts.devices}
    silent = sorted((one for one in facts.members if one.serves and one.id not in reported), key=lambda one: one.id)
    columns = facts.subject.columns
    shedding = [one for one in facts.members if one.shed]
    numbers: tuple[Number, ...] = (
        phrases.devices_number(len(reported), len(reported) + len(silent)),
        phrases.columns_number(
            sum(one.columns for one in facts.devices), len(facts.devices) * columns.number, columns.kind
        ),
        *phrases.requests_numbers(facts.requests, facts.failed),
        phrases.shed_number(sum(one.shed for one in shedding), len(shedding)),
    )
    shown = tuple(Silent(one.id, one.seen_at) for one in silent[:SILENT])
    return Coverage(numbers, shown, max(0, len(silent) - SILENT))


def _of_alerts(live: Collection[Alert]) -> list[Level]:
    return ["act" if one.severity in ("high", "critical") else "watch" for one in live]


def _of_figures(figures: Sequence[Figure]) -> list[Level]:
    """A measure without data asks nothing: most fleets have no labels."""
    found = [phrases.figure_level(one) for one in figures]
    return [level for level in found if level != "unknown"]


def _head(facts: Facts, features: Sequence[Feature], live: Sequence[Alert], level: Level) -> tuple[str, str]:
    """Is there anything to do?"""
    release, place = f"{facts.subject.model} {facts.subject.version}", phrases.where(facts.subject.scope)
    act = [one.name for one in features if one.level == "act"]
    watch = [one.name for one in features if one.level == "watch"]
    worse = [one.metric for one in facts.performance.figures if one.state == "worse" and not one.estimate]
    if level == "act":
        why = [f"{_list(act)} moved away from the reference"] if act else []
        why += [f"{_list(worse)} got worse"] if worse else []
        why += [f"{phrases.many(len(live), 'alert')} {'is' if len(live) == 1 else 'are'} open"] if live else []
        advice = "Look at the devices below, acknowledge the alerts, and decide: repair the input, retrain, roll back."
        return f"Act: on {place}, {' and '.join(why)}.", advice
    if level == "watch":
        worse_a_little = [one.metric for one in facts.performance.figures if one.state in ("watch", "worse")]
        moved = [f"{_list(watch)} changed beyond chance"] if watch else []
        moved += [f"{_list(worse_a_little)} is a little worse"] if worse_a_little else []
        moved += [f"{phrases.many(len(live), 'alert')} of low or medium severity open"] if live and not watch else []
        return f"Watch: on {place}, {' and '.join(moved)}.", "Nothing needs doing today; look again in a day or two."
    if level == "unknown" and all(one.level == "unknown" for one in features):
        return f"Insufficient data: too little came from {place} to judge {release}.", "Wait, or take a longer time."
    if level == "unknown":
        few = [one.name for one in features if one.level == "unknown"]
        return f"Nothing to do: what can be judged is as the reference; too few samples of {_list(few)}.", "No action."
    return f"Nothing to do: {release} sees on {place} what it was made for.", "No action."


def _list(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"
