"""The shell of performance: new windows -> tallies of each day -> what got worse -> alerts.

A release is compared with its reference data, its latency with what the same device needed for the same model in the
days before. A window counts when it was measured, however late it comes. The memory is kept as sums once a minute; at
start they are read, and the windows that came later.

I/O: tasks.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.alerts.expected import ERRORS
from fleet.alerts.states import Severity
from fleet.store import alerts as alert_store
from fleet.store import devices, releases, sketches, tables, tallies, windows
from fleet.telemetry import performance
from fleet.telemetry.driver import Parts
from fleet.telemetry.performance import Limits, Loss, Tally
from fleet.telemetry.vectors import Calendar
from shared.sketches import Latency

KIND: Final = "performance"
REST_SECONDS: Final = 5.0
PAGE: Final = 2000
#: Windows that committed late are looked for this far back.
OVERLAP: Final = timedelta(seconds=5)
#: How often what is remembered is kept.
KEEP_EVERY: Final = timedelta(minutes=1)
#: How far beyond its limit a loss is, from the worst down.
_SEVERITIES: Final[tuple[tuple[float, Severity], ...]] = ((4.0, "critical"), (2.0, "high"), (0.0, "medium"))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Place = tuple[str, str]  # device, model


class PerformanceDriver:
    """Compares every release that serves with its reference, and each device with its own past. One per manager."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        settings = parts.settings
        self._limits = Limits.of(settings)
        self._calendar = Calendar.of(settings.drift_detection.detection_window_days)
        self._clear_after = settings.alerts.clear_evaluations
        self._detection = timedelta(days=settings.drift_detection.detection_window_days)
        self._kept = self._detection + timedelta(days=settings.drift_detection.baseline_window_days)
        # place -> start of a bucket -> version -> what it did then
        self._tallies: dict[Place, dict[datetime, dict[str, Tally]]] = defaultdict(lambda: defaultdict(dict))
        self._references: dict[tuple[str, str], Mapping[str, float]] = {}
        self._seen: dict[windows.Name, datetime] = {}
        self._since: datetime | None = None  # the newest arrival that was counted
        self._floor: datetime | None = None  # what arrived up to here is in the sums that were read at start
        self._unkept = set[tuple[Place, datetime]]()
        self._kept_at: datetime | None = None
        self._quiet = Counter[str]()  # alert -> looks in a row that did not find its cause

    async def run(self) -> None:
        """Until cancelled: look when something was committed, at most every few seconds."""
        seen = -1
        while True:
            await self.evaluate()
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, self._detection.total_seconds() / 24)

    async def evaluate(self) -> None:
        """One look at what came since the one before."""
        now = self._parts.clock.now()
        if self._floor is None:
            await self._restore(now)
        async with self._parts.database.read() as tx:
            changed = await self._take(tx, now)
            serving = await devices.serving(tx)
            live = await alert_store.live(tx, kind=KIND)
            await self._learn(tx, {(model, serving.get(device, {}).get(model, "")) for device, model in changed})
        await self._keep(now)
        found = {
            (f"device:{place[0]}", f"{place[1]}@{version} {loss.metric}"): (version, loss)
            for place in changed
            if (version := serving.get(place[0], {}).get(place[1])) is not None
            for loss in self._losses(place, version, now)
        }
        over = {alert.id for alert in live if self._is_over(alert, changed, found.keys())}
        if not found and not over:
            return
        async with self._parts.database.write() as tx:
            for (scope, subject), (version, loss) in found.items():
                await _raise(tx, scope, subject, version, loss, now)
            for alert in await alert_store.live(tx, kind=KIND):
                if alert.id in over:
                    await desk.clear(tx, alert, because="back within its limit", now=now)
        self._parts.hub.wake()

    async def _take(self, tx: AsyncSession, now: datetime) -> set[Place]:
        """Read what is new, a page at a time; the places that it is about."""
        floor = self._floor or now - self._kept
        changed = set[Place]()
        async for row in windows.performances(tx, max(floor, (self._since or floor) - OVERLAP), page=PAGE):
            if row.name in self._seen:
                continue
            self._seen[row.name] = row.received_at
            place, bucket = (row.device, row.model), self._measured(row)
            self._tallies[place][bucket].setdefault(row.version, Tally()).add(_tally(row))
            self._unkept.add((place, bucket))
            changed.add(place)
            self._since = max(self._since or row.received_at, row.received_at)
        edge = (self._since or now) - 2 * OVERLAP
        self._seen = {name: at for name, at in self._seen.items() if at >= edge}
        oldest = self._bucket(now - self._kept)
        for buckets in self._tallies.values():
            for start in [start for start in buckets if start < oldest]:
                del buckets[start]
        return changed

    async def _restore(self, now: datetime) -> None:
        self._floor = now - self._kept
        async with self._parts.database.read() as tx:
            async for one in tallies.load(tx, self._bucket(now - self._kept)):
                place = (one.place.device, one.place.model)
                self._tallies[place][one.place.start][one.place.version] = Tally.of(one.body)
                self._floor = max(self._floor, one.counted_to)
        self._since = self._kept_at = self._floor

    async def _keep(self, now: datetime) -> None:
        """What changed, once in a while. Lost with a crash: it is counted again from the windows."""
        if not self._unkept or self._since is None or (self._kept_at and now - self._kept_at < KEEP_EVERY):
            return
        self._kept_at, unkept, self._unkept = now, self._unkept, set()
        sums = [
            tallies.Sum(sketches.Place(*place, version, tallies.SPAN, bucket), self._since, tally.body)
            for place, bucket in unkept
            for version, tally in self._tallies[place].get(bucket, {}).items()
        ]
        async with self._parts.database.write() as tx:
            await tallies.save(tx, sums, oldest=self._bucket(now - self._kept))

    def _measured(self, row: windows.Performance) -> datetime:
        """The bucket of the window's own times; of its arrival where they cannot be believed."""
        hour, _believed = self._calendar.place(row.start, row.end, row.received_at)
        return self._bucket(self._calendar.begin(hour))

    def _bucket(self, at: datetime) -> datetime:
        return at - (at - _EPOCH) % (self._detection / 2)

    async def _learn(self, tx: AsyncSession, wanted: set[tuple[str, str]]) -> None:
        for model, version in wanted - self._references.keys():
            if version and (metrics := await releases.metrics(tx, model, version)) is not None:
                self._references[model, version] = metrics

    def _losses(self, place: Place, version: str, now: datetime) -> Iterator[Loss]:
        edge = self._bucket(now - self._detection / 2)
        recent, before = Tally(), Counter[int]()
        for start, versions in self._tallies[place].items():
            if start >= edge:
                recent.add(versions.get(version, Tally()))
            else:
                for tally in versions.values():
                    before.update(tally.latency)
        reference = self._references.get((place[1], version), {})
        yield from performance.losses(self._limits, recent, reference, Latency(before))

    def _is_over(self, alert: tables.Alert, changed: set[Place], found: Collection[tuple[str, str]]) -> bool:
        """Whether so many looks in a row at its device did not find its cause."""
        if alert.subject.endswith(ERRORS):  # of failing requests: fleet.alerts watches those itself
            return False
        if (alert.scope.removeprefix("device:"), str(alert.body.get("model"))) not in changed:
            return False
        if (alert.scope, alert.subject) in found:
            self._quiet.pop(alert.id, None)
            return False
        self._quiet[alert.id] += 1
        return self._quiet[alert.id] >= self._clear_after


def _tally(row: windows.Performance) -> Tally:
    confusion = Counter({(truth, predicted): number for truth, predicted, number in row.confusion})
    return Tally(row.labelled, row.correct, confusion, Counter({int(k): n for k, n in row.latency.items()}))


async def _raise(tx: AsyncSession, scope: str, subject: str, version: str, loss: Loss, now: datetime) -> tables.Alert:
    model = subject.partition("@")[0]
    severity = next(word for times, word in _SEVERITIES if loss.excess >= times)
    return await desk.open_alert(
        tx,
        kind=KIND,
        scope=scope,
        subject=subject,
        severity=severity,
        text=f"{model} {version} on {scope.removeprefix('device:')}: {loss.text}",
        body={
            "model": model,
            "version": version,
            "metric": loss.metric,
            "value": round(loss.value, 4),
            "reference": round(loss.reference, 4),
            "limit": loss.limit,
            "samples": loss.samples,
        },
        now=now,
    )
