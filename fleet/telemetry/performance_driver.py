"""The shell of performance: new windows -> tallies of each day -> what got worse -> alerts.

A release is compared with its reference data, its latency with what the same device needed for the same model in the
days before. A window counts when it was measured, however late it comes. The memory is kept as sums once a minute; at
start they are read, and the windows that came later.

I/O: tasks.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.alerts.expected import ERRORS
from fleet.alerts.states import Severity
from fleet.driver_parts import DriverParts
from fleet.store import alerts as alert_store
from fleet.store import devices, releases, sketches, tables, tallies, windows
from fleet.telemetry import performance
from fleet.telemetry.figures import Standing, figures, fleet_figures
from fleet.telemetry.finding import FLEET
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

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        settings = parts.settings
        self._limits = Limits.of(settings)
        self._calendar = Calendar.of(settings.drift_detection.detection_window_days)
        self._clear_after = settings.alerts.clear_evaluations
        self._detection = timedelta(days=settings.drift_detection.detection_window_days)
        self._kept = self._detection + timedelta(days=settings.drift_detection.baseline_window_days)
        # place -> start of a bucket -> version -> what it did then
        self._tallies: dict[Place, dict[datetime, dict[str, Tally]]] = defaultdict(lambda: defaultdict(dict))
        self._newest: dict[Place, dict[str, datetime]] = defaultdict(dict)  # when each version was last heard of
        self._references: dict[tuple[str, str], Mapping[str, float]] = {}
        self._seen: dict[windows.Name, datetime] = {}
        self._since: datetime | None = None  # the newest arrival that was counted
        self._floor: datetime | None = None  # what arrived up to here is in the sums that were read at start
        self._unkept = set[tuple[Place, datetime]]()
        self._kept_at: datetime | None = None
        self._changed = set[Place]()  # since the last look
        self._quiet = Counter[str]()  # alert -> looks in a row that did not find its cause

    async def run(self) -> None:
        """Until cancelled: count what comes at once, and judge it as often as the settings say."""
        every = timedelta(minutes=self._parts.settings.deployment.performance_monitoring_interval_minutes)
        time = asyncio.get_running_loop().time
        due, seen = time(), -1
        while True:
            if time() >= due:
                await self.evaluate()
                due = time() + every.total_seconds()
            else:
                await self.count()
            await asyncio.sleep(min(REST_SECONDS, every.total_seconds()))
            seen = await self._parts.hub.wait(seen, max(0.0, due - time()))

    async def count(self, *, keep: bool = True) -> None:
        """Take in what came since the last time, for the figures of now. Without `keep` nothing is written."""
        now = self._parts.clock.now()
        if self._floor is None:
            await self._restore(now)
        async with self._parts.database.read() as tx:
            self._changed |= await self._take(tx, now)
            await self._learn(tx, {(place[1], version) for place in self._changed for version in self._newest[place]})
        if keep:
            await self._keep(now)

    async def evaluate(self) -> None:
        """One look at what came since the look before."""
        await self.count()
        now, changed, self._changed = self._parts.clock.now(), self._changed, set()
        async with self._parts.database.read() as tx:
            serving = await devices.serving(tx)
            live = await alert_store.live(tx, kind=KIND)
            await self._learn(tx, {(model, serving.get(device, {}).get(model, "")) for device, model in changed})
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
            self._tallies[place][bucket].setdefault(row.version, Tally()).add(
                Tally.of(row.labelled, row.correct, row.confusion, row.latency)
            )
            self._newest[place][row.version] = max(self._newest[place].get(row.version, row.end), row.end)
            self._unkept.add((place, bucket))
            changed.add(place)
            self._since = max(self._since or row.received_at, row.received_at)
        edge = (self._since or now) - 2 * OVERLAP
        self._seen = {name: at for name, at in self._seen.items() if at >= edge}
        oldest = self._bucket(now - self._kept)
        for buckets in self._tallies.values():
            for start in [start for start in buckets if start < oldest]:
                del buckets[start]
        for place in [place for place, buckets in self._tallies.items() if not buckets]:
            del self._tallies[place]
            self._newest.pop(place, None)
        return changed

    async def _restore(self, now: datetime) -> None:
        self._floor = now - self._kept
        async with self._parts.database.read() as tx:
            async for one in tallies.load(tx, self._bucket(now - self._kept)):
                place = (one.place.device, one.place.model)
                self._tallies[place][one.place.start][one.place.version] = Tally.read(one.body)
                newest = self._newest[place].get(one.place.version, one.counted_to)
                self._newest[place][one.place.version] = max(newest, one.counted_to)
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

    def standings(self, model: str) -> Sequence[Standing]:
        """How each version of `model` does now: on every device that it was heard of from, and on all of them."""
        edge = self._bucket(self._parts.clock.now() - self._detection / 2)
        heard = [(place, version) for place in self._tallies if place[1] == model for version in self._newest[place]]
        heard = [(place, version) for place, version in heard if self._newest[place][version] >= edge]
        found: list[Standing] = []
        for version in sorted({version for _, version in heard}):
            reference = self._references.get((model, version), {})
            places = [place for place, other in heard if other == version]
            sides = [self._sides(place, version, edge) for place in places]
            for place, (recent, before) in zip(places, sides, strict=True):
                own = figures(self._limits, recent, reference, Latency(before))
                as_of = self._newest[place][version]
                found.append(Standing(model, version, f"device:{place[0]}", edge, as_of, own))
            whole = fleet_figures(self._limits, sides, reference)
            newest = max(self._newest[place][version] for place in places)
            found.append(Standing(model, version, FLEET, edge, newest, whole))
        return found

    def _sides(self, place: Place, version: str, edge: datetime) -> tuple[Tally, Counter[int]]:
        """What a version did since `edge`, and how long the device needed before it, in any version."""
        recent, before = Tally(), Counter[int]()
        for start, versions in self._tallies[place].items():
            if start >= edge:
                recent.add(versions.get(version, Tally()))
            else:
                for tally in versions.values():
                    before.update(tally.latency)
        return recent, before

    def _losses(self, place: Place, version: str, now: datetime) -> Iterator[Loss]:
        recent, before = self._sides(place, version, self._bucket(now - self._detection / 2))
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
