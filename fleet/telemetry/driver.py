"""The shell of drift: new windows -> sums -> statistics -> verdicts -> rows and alerts.

Its memory (the sums) is rebuilt from the stored windows at start, so that a restart changes no verdict.

I/O: tasks.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.hub import Hub
from fleet.settings import FleetSettings
from fleet.store import drift as store
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry import alarms, baselines, drift, verdict
from fleet.telemetry.alarms import FLEET, Finding
from fleet.telemetry.baselines import Reference
from fleet.telemetry.sliding import Key, Sliding
from fleet.telemetry.verdict import Rule, Standing
from shared.clock import Clock
from shared.messages import TelemetryWindow
from shared.sketches import add

logger = logging.getLogger(__name__)

#: With news, never looked at more often than this.
REST_SECONDS: Final = 1.0
#: Windows that committed late are looked for this far back.
OVERLAP: Final = timedelta(seconds=30)

Release = tuple[str, str]
Cell = tuple[str, str, str, str]  # scope, model, version, feature


class Parts(Protocol):
    """What the driver needs of `fleet.daemon.Manager`."""

    @property
    def settings(self) -> FleetSettings: ...
    @property
    def database(self) -> Database: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def hub(self) -> Hub: ...


@dataclass(frozen=True, slots=True)
class _Task:
    cell: Cell
    counts: Sequence[int]
    reference: Reference


class DriftDriver:
    """Compares every release on every device with its reference. One per manager."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rule = Rule.of(parts.settings)
        self._length = timedelta(days=parts.settings.drift_detection.detection_window_days)
        self._sliding = Sliding(self._length)
        self._references: dict[Release, Mapping[str, Reference]] = {}
        self._seen: dict[tuple[str, str, int], datetime] = {}
        self._since: datetime | None = None

    @property
    def refused(self) -> int:
        """Feature counts that were not merged because their bins are not those of the release."""
        return self._sliding.refused

    async def run(self) -> None:
        """Until cancelled: look when something was committed, at most once a second, and after the set interval."""
        seen = -1
        interval = self._parts.settings.drift_detection.monitoring_interval_hours * 3600
        while True:
            await self.evaluate()
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, interval)

    async def evaluate(self) -> None:
        """One look. Without new windows, and with none that grew too old, nothing is written."""
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            changed = await self._take(tx, now)
            serving = await store.serving(tx)
        changed |= self._sliding.expire(now)
        stale = {key for key in self._sliding.known() if _stale(key, serving)}
        if not changed and not stale:
            return
        self._sliding.forget(stale)
        releases = {(key.model, key.version) for key in changed | stale}
        found = self._compared(changed - stale, releases)
        async with self._parts.database.write() as tx:
            await alarms.forget_stale(tx, serving, now)
            await self._save(tx, found, now)
        self._parts.hub.wake()

    async def _take(self, tx: AsyncSession, now: datetime) -> set[Key]:
        since = now - self._length if self._since is None else self._since - OVERLAP
        rows = [row for row in await store.windows_since(tx, since) if _id(row) not in self._seen]
        await self._learn(tx, {(row.model, row.version) for row in rows})
        changed = set[Key]()
        for row in rows:
            self._seen[_id(row)] = row.received_at
            if (window := _parsed(row)) is not None:
                changed.add(self._sliding.add(row.received_at, window, self._references[row.model, row.version]))
        self._since = max((row.received_at for row in rows), default=self._since or now)
        edge = self._since - 2 * OVERLAP
        self._seen = {key: at for key, at in self._seen.items() if at >= edge}
        return changed

    async def _learn(self, tx: AsyncSession, releases: set[Release]) -> None:
        if missing := releases - self._references.keys():
            bodies = await store.baselines(tx, missing)
            for release in missing:
                self._references[release] = baselines.references(bodies.get(release, {}))

    def _compared(self, keys: set[Key], releases: set[Release]) -> list[Finding]:
        """Statistics of the devices that changed, and of the fleet for their releases."""
        tasks = [task for key in keys for task in self._tasks(f"device:{key.device}", [key])]
        by_release: dict[Release, list[Key]] = defaultdict(list)
        for key in self._sliding.known():
            by_release[key.model, key.version].append(key)
        for release in releases & by_release.keys():
            tasks += self._tasks(FLEET, by_release[release])
        judged = [task for task in tasks if sum(task.counts) > 0]
        pairs = [drift.Pair(task.counts, task.reference.counts, task.reference.widths) for task in judged]
        results = drift.compare(pairs, self._rule.significance)
        return [
            Finding(*task.cell, sum(task.counts), statistics, task.reference, tuple(task.counts))
            for task, statistics in zip(judged, results, strict=True)
        ]

    def _tasks(self, scope: str, keys: Sequence[Key]) -> list[_Task]:
        sums: dict[str, list[int]] = {}
        for key in keys:
            for feature, counts in self._sliding.counts(key).items():
                sums[feature] = add(sums[feature], counts) if feature in sums else list(counts)
        model, version = keys[0].model, keys[0].version
        references = self._references[model, version]
        return [_Task((scope, model, version, name), counts, references[name]) for name, counts in sums.items()]

    async def _save(self, tx: AsyncSession, found: Sequence[Finding], now: datetime) -> None:
        before = {(row.scope, row.model, row.version, row.feature): row for row in await store.states(tx)}
        standings: dict[Cell, Standing] = {}
        for finding in found:
            old = before.get(finding.cell)
            standing = verdict.look(self._rule, _standing(old), finding.samples, finding.statistics)
            standings[finding.cell] = standing
            await store.put(tx, _row(self._rule, finding, standing, old, now))
        await tx.flush()
        await alarms.settle(tx, self._rule, found, standings, now)


def _id(row: tables.Window) -> tuple[str, str, int]:
    return row.device_id, row.stream, row.sequence


def _stale(key: Key, serving: Mapping[str, Mapping[str, str]]) -> bool:
    models = serving.get(key.device)
    return models is None or models.get(key.model, key.version) != key.version


def _parsed(row: tables.Window) -> TelemetryWindow | None:
    try:
        return TelemetryWindow.model_validate(row.body)
    except ValidationError:
        logger.warning("window of another form device=%s sequence=%s", row.device_id, row.sequence)
        return None


def _standing(row: tables.DriftState | None) -> Standing:
    if row is None:
        return Standing()
    state = next((it for it in ("collecting", "ok", "warning", "drifted") if it == row.state), "collecting")
    return Standing(state, int(row.body.get("quiet", 0)))  # type: ignore[arg-type]


def _row(
    rule: Rule, finding: Finding, standing: Standing, old: tables.DriftState | None, now: datetime
) -> tables.DriftState:
    return tables.DriftState(
        scope=finding.scope,
        model=finding.model,
        version=finding.version,
        feature=finding.feature,
        state=standing.state,
        samples=finding.samples,
        body=alarms.body(rule, finding, standing, () if old is None else old.body.get("history", ())),
        since=now if old is None or old.state != standing.state else old.since,
        updated_at=now,
    )
