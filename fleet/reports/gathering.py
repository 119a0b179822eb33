"""The store to facts: which release, which devices, their sums block by block, verdicts, alerts, performance.

I/O: tasks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.api.problems import NotFoundError
from fleet.reports import comparing, performing
from fleet.reports.comparing import Device, Floats, Ints
from fleet.reports.content import Alert, Performance
from fleet.reports.errors import EmptyReportError, SpanError
from fleet.reports.facts import Facts, Member, Subject
from fleet.reports.phrases import at, where
from fleet.reports.span import Columns, columns
from fleet.settings import FleetSettings
from fleet.store import drift as drift_store
from fleet.store import releases, sketches, tables
from fleet.store import reports as store
from fleet.store.database import Database
from fleet.store.reports import Known
from fleet.store.sketches import Place
from fleet.telemetry import baselines, figures
from fleet.telemetry.finding import FLEET
from fleet.telemetry.layout import Layout
from fleet.telemetry.performance import Limits
from fleet.telemetry.vectors import Calendar, unpack
from fleet.telemetry.verdict import Rule

#: Devices whose sums are in memory at once.
BLOCK: Final = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked for. No version: the one that most devices serve. `scope`: fleet, site:NAME, device:NAME."""

    model: str
    version: str | None
    scope: str
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Sums:
    """What grows while blocks go by."""

    whole: Ints  # added to
    sites: dict[str, Ints] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)


async def gather(database: Database, settings: FleetSettings, wish: Wish) -> Facts:
    """Everything that a report on `wish` is made from.

    Raises:
        NotFoundError: no such model, version, site or device.
        EmptyReportError: nothing came in this time, or nothing that could be compared.
        SpanError: the time holds no column.
    """
    calendar = Calendar.of(settings.drift_detection.detection_window_days)
    if wish.begin >= wish.end:
        raise SpanError(f"{at(wish.begin)} is not before {at(wish.end)}")
    cut = columns(calendar, wish.begin, wish.end)
    async with database.read() as tx:
        known = await store.devices(tx)
        chosen = _chosen(known, wish.scope)
        subject, others = await _subject(tx, wish, cut, calendar, known)
        layout = await _layout(tx, subject)
        references = await _references(tx, subject, layout)
        states = await drift_store.states(tx, model=subject.model)
        reporters = await store.reporters(tx, subject.model, subject.version, cut.kind, *_edges(subject))
    reporters = [one for one in reporters if chosen is None or one in chosen]
    rule = Rule.of(settings)
    judge = _Judge(layout, rule, references, _heaviness(states, subject, layout, rule), Limits.of(settings))
    sums = _Sums(np.zeros((cut.number, layout.size), dtype=np.int64))
    for start in range(0, len(reporters), BLOCK):
        some = reporters[start : start + BLOCK]
        async with database.read() as tx:
            rows = await store.sums(tx, _place(subject), _edges(subject)[1], some)
        await asyncio.to_thread(_take, sums, judge, subject, some, rows, known)
    if not sums.whole.any():
        raise EmptyReportError(
            f"nothing of {subject.model}@{subject.version} on {where(subject.scope)} was counted "
            f"between {at(subject.begin)} and {at(subject.end)}"
        )
    async with database.read() as tx:
        performance = await performing.performance(
            tx, subject, judge.limits, timedelta(days=settings.drift_detection.baseline_window_days), chosen
        )
        return await _facts(tx, subject, judge, sums, known, chosen, states, performance, others)


class _Judge:
    """How rows are compared: what with, and how much ordinary days differ."""

    def __init__(
        self,
        layout: Layout,
        rule: Rule,
        references: Mapping[str, Ints],
        heavy: Mapping[str, Floats],
        limits: Limits,
    ) -> None:
        self.layout, self.rule, self.limits = layout, rule, limits
        self._references, self._heavy = references, heavy

    def compare(self, scopes: Sequence[str], counts: Ints) -> list[comparing.Compared]:
        """One result for each scope of counts [scopes, columns, places]."""
        fleet = self._references.get(FLEET, self.layout.vector)
        ones = np.ones(len(self.layout.names))
        reference = np.stack([self._references.get(scope, fleet) for scope in scopes])
        heavy = np.stack([self._heavy.get(scope, self._heavy.get(FLEET, ones)) for scope in scopes])
        return comparing.compare(counts, reference, heavy, self.layout, self.rule)


def _take(
    sums: _Sums,
    judge: _Judge,
    subject: Subject,
    devices: Sequence[str],
    rows: Sequence[tuple[str, datetime, bytes]],
    known: Mapping[str, Known],
) -> None:
    """One block of devices: judged, and added to its sites and to all."""
    counts = np.zeros((len(devices), subject.columns.number, judge.layout.size), dtype=np.int64)
    places = {device: place for place, device in enumerate(devices)}
    for device, start, stored in rows:
        column = subject.columns.place(subject.calendar.hour(start))
        vector = unpack(stored, judge.layout.size)
        if column is not None and vector is not None:
            counts[places[device], column] += vector
    for device, found in zip(devices, judge.compare([f"device:{it}" for it in devices], counts), strict=True):
        site = known[device].site if device in known else ""
        sums.devices.append(comparing.device(device, site, found, judge.layout))
        sums.sites[site] = sums.sites[site] + found.counts if site in sums.sites else found.counts.copy()
    np.add(sums.whole, counts.sum(axis=0), out=sums.whole)


def _chosen(known: Mapping[str, Known], scope: str) -> Collection[str] | None:
    """The devices of a scope; None for all."""
    kind, _, name = scope.partition(":")
    if kind == "device" and name not in known:
        raise NotFoundError(f"there is no device {name[:64]!r}", remedy="flotilla device list")
    if kind == "site" and name not in {one.site for one in known.values()}:
        raise NotFoundError(f"no device is at the site {name[:64]!r}", remedy="flotilla device list")
    if kind == FLEET:
        return None
    return {one.id for one in known.values() if name == (one.id if kind == "device" else one.site)}


async def _subject(
    tx: AsyncSession, wish: Wish, cut: Columns, calendar: Calendar, known: Mapping[str, Known]
) -> tuple[Subject, Sequence[str]]:
    """Which version it is about, and which others there are data of."""
    published = {row.version: row.counter for row in await releases.of_model(tx, wish.model)}
    if not published:
        raise NotFoundError(f"no model {wish.model[:64]!r} was published here", remedy="flotilla model list")
    if wish.version is not None and wish.version not in published:
        found = f"{wish.model}@{wish.version[:64]}"
        raise NotFoundError(f"{found} was not published here", remedy=f"flotilla model show {wish.model}")
    begin = calendar.begin(cut.first)
    counted = await store.versions(tx, wish.model, cut.kind, begin, wish.end)
    serving = [one.serving.get(wish.model) for one in known.values()]

    def weight(version: str) -> tuple[bool, int, int]:
        return version in counted, serving.count(version), published[version]

    version = wish.version or max(published, key=weight)
    subject = Subject(wish.model, version, wish.scope, begin, wish.end, cut, calendar)
    return subject, sorted(set(counted) - {version}, key=lambda one: published.get(one, 0), reverse=True)


async def _layout(tx: AsyncSession, subject: Subject) -> Layout:
    release = (subject.model, subject.version)
    references = baselines.references((await drift_store.baselines(tx, {release})).get(release, {}))
    if not references:
        raise EmptyReportError(
            f"{subject.model}@{subject.version} was published without reference data, so nothing can be compared",
            remedy="publish the next version with --reference",
        )
    return Layout.of(references)


def _edges(subject: Subject) -> tuple[datetime, datetime]:
    return subject.begin, subject.end


def _place(subject: Subject) -> Place:
    return Place("", subject.model, subject.version, subject.columns.kind, subject.begin)


async def _references(tx: AsyncSession, subject: Subject, layout: Layout) -> Mapping[str, Ints]:
    """Scope -> what somebody chose to compare it with."""
    found: dict[str, Ints] = {}
    for row in await sketches.choices(tx):
        if (row.model, row.version) == (subject.model, subject.version) and row.vector is not None:
            vector = unpack(row.vector, layout.size)
            if vector is not None:
                found[row.scope] = vector
    return found


def _heaviness(
    states: Sequence[tables.DriftState], subject: Subject, layout: Layout, rule: Rule
) -> Mapping[str, Floats]:
    """Scope -> by how much ordinary days make PSI larger, as the driver last knew it."""
    by_scope: defaultdict[str, list[tuple[str, float, int, int]]] = defaultdict(list)
    for row in states:
        limit, expected = row.body.get("psi_limit"), row.body.get("reference_samples")
        if row.version == subject.version and limit is not None and expected:
            by_scope[row.scope].append((row.feature, float(limit), row.samples, int(expected)))
    return {scope: comparing.heaviness(layout, known, rule.significance) for scope, known in by_scope.items()}


async def _facts(
    tx: AsyncSession,
    subject: Subject,
    judge: _Judge,
    sums: _Sums,
    known: Mapping[str, Known],
    chosen: Collection[str] | None,
    states: Sequence[tables.DriftState],
    performance: Performance,
    others: Sequence[str],
) -> Facts:
    """The rest, and all of it together."""
    requests, failed = await store.requests(tx, subject.model, subject.version, *_edges(subject), chosen)
    rows = [row for row in await store.alerts(tx, *_edges(subject)) if _concerns(row, subject, known, chosen)]
    shed = await store.shed(tx)
    reported = {one.name for one in sums.devices}
    alerted: defaultdict[str, list[tuple[str, Alert]]] = defaultdict(list)
    for row in rows:
        if row.kind == "drift":
            alerted[row.scope].append((str(row.body.get("feature", "")), _alert(row)))
    whole = judge.compare([subject.scope], sums.whole[None])[0]
    sites = judge.compare([f"site:{it}" for it in sums.sites], np.stack(list(sums.sites.values())))
    return Facts(
        subject=subject,
        rule=judge.rule,
        layout=judge.layout,
        whole=whole,
        sites=dict(zip(sums.sites, sites, strict=True)),
        devices=sums.devices,
        members=[
            Member(one.id, one.site, one.seen_at, _serves(one, subject), shed.get(one.id, 0))
            for one in known.values()
            if (chosen is None or one.id in chosen) and (one.id in reported or _serves(one, subject))
        ],
        alerts=[_alert(row) for row in rows],
        alerted=alerted,
        states={
            row.feature: row.state for row in states if row.version == subject.version and row.scope == subject.scope
        },
        performance=_with_estimate(performance, subject, states, judge.limits),
        requests=requests,
        failed=failed,
        others=others,
    )


def _with_estimate(
    performance: Performance, subject: Subject, states: Sequence[tables.DriftState], limits: Limits
) -> Performance:
    """What confidence alone says of accuracy now, beside what was measured."""
    said = [
        row.body["accuracy_estimate"]
        for row in states
        if "accuracy_estimate" in row.body and (row.version, row.scope) == (subject.version, subject.scope)
    ]
    return replace(performance, figures=(*performance.figures, *(figures.estimated(one, limits) for one in said)))


def _serves(one: Known, subject: Subject) -> bool:
    return one.active and one.serving.get(subject.model) == subject.version


def _concerns(row: tables.Alert, subject: Subject, known: Mapping[str, Known], chosen: Collection[str] | None) -> bool:
    """Whether an alert is about this release, in this scope or beneath it."""
    if row.body.get("model") != subject.model or row.body.get("version") not in (None, subject.version):
        return False
    kind, _, name = row.scope.partition(":")
    return chosen is None or row.scope == subject.scope or (kind == "device" and name in chosen and name in known)


def _alert(row: tables.Alert) -> Alert:
    return Alert(row.id, row.kind, row.scope, row.severity, row.state, row.text, row.opened_at, row.resolved_at)
