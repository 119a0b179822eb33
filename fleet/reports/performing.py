"""Stored windows to the figures of a report: how well a release answered, how fast, and against which past.

I/O: none.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.reports.content import Performance
from fleet.reports.facts import Subject
from fleet.reports.phrases import at
from fleet.store import releases, windows
from fleet.store import reports as store
from fleet.telemetry.figures import fleet_figures
from fleet.telemetry.performance import Limits, Tally, losses
from shared.sketches import Latency

PAGE: Final = 2000
_INSTANT: Final = timedelta(microseconds=1)
#: More windows than this are not read for one report; which time that covers is told.
WINDOWS: Final = 100_000


async def performance(
    tx: AsyncSession, subject: Subject, limits: Limits, past: timedelta, devices: Collection[str] | None
) -> Performance:
    """Of these devices, or of all. What lies before the report's time, up to `past`, is each device's own history."""
    earliest = await store.earliest_of(tx, subject.model, subject.begin - past, WINDOWS)
    since = max(subject.begin - past, earliest or subject.begin - past)
    now: defaultdict[str, Tally] = defaultdict(Tally)
    before: defaultdict[str, Counter[int]] = defaultdict(Counter)
    as_of: datetime | None = None
    async for row in windows.performances(tx, since - _INSTANT, page=PAGE, model=subject.model):
        measured = min(row.end, row.received_at)  # when it was measured, however late it came
        if measured >= subject.end or (devices is not None and row.device not in devices):
            continue
        tally = Tally.of(row.labelled, row.correct, row.confusion, row.latency)
        if measured < subject.begin:
            before[row.device].update(tally.latency)
        elif row.version == subject.version:
            now[row.device].add(tally)
            as_of = max(as_of or measured, measured)
    reference = await releases.metrics(tx, subject.model, subject.version) or {}
    sides = [(tally, before[device]) for device, tally in now.items()]
    slower = [
        device
        for device, tally in sorted(now.items())
        if any(loss.metric == "latency" for loss in losses(limits, tally, {}, Latency(before[device])))
    ]
    return Performance(fleet_figures(limits, sides, reference), tuple(slower), _note(subject, since), as_of)


def _note(subject: Subject, since: datetime) -> str:
    if since > subject.begin:
        return f"Made from the newest {WINDOWS} windows, since {at(since)}: a part of the time of this report."
    return "Latency is compared with what the same devices needed before this time."
