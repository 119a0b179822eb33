"""A report on a large fleet: how long the manager works, and how large the files are.

python -m tests.bench.report [--quick] [--json]

1000 devices (100 with --quick) with 20 features, a week of sums of days and two days of sums of hours in SQLite.
Processor time of the whole process; the goal for the page is below 1 MB.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from fleet.reports.gathering import Wish
from fleet.reports.reporter import Format, Reporter, written
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry import baselines
from fleet.telemetry.layout import Layout
from fleet.telemetry.vectors import pack
from shared.sketches import Baseline, FeatureBaseline, count, quantile_edges
from tests.bench.document import Result, arguments, tell
from tests.fleet.telemetry.test_performance_driver import manifest

NOW = datetime(2026, 11, 26, 10, 45, tzinfo=UTC)
FEATURES, SITES, SAMPLES = 20, 40, 1000
PAGE_KB = 1000.0


class Still:
    """A clock that stands."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Parts:
    """What the reporter needs."""

    database: Database
    settings: FleetSettings = field(default_factory=FleetSettings)
    clock: Still = field(default_factory=Still)


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    devices = 100 if asked.quick else 1000
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as folder:
        results = asyncio.run(measured(Path(folder), devices))
    return tell("report", results, as_json=asked.json)


async def measured(folder: Path, devices: int) -> list[Result]:
    database = Database(f"sqlite+aiosqlite:///{folder / 'fleet.sqlite'}")
    await database.open()
    try:
        await fill(database, devices)
        found: list[Result] = []
        for words, length in (("a week", timedelta(days=7)), ("two days", timedelta(hours=47))):
            began = time.process_time()
            report = await Reporter(Parts(database)).report(Wish("digits", None, "fleet", NOW - length, NOW))
            spent = time.process_time() - began
            found.append(Result(f"{words} of {devices} devices: report", round(spent, 2), "s"))
            kinds: tuple[Format, ...] = ("html", "json", "pdf")
            for kind in kinds:
                began = time.process_time()
                size = len(written(report, kind)) / 1000
                spent = time.process_time() - began
                found.append(Result(f"{words}: {kind}, processor time", round(spent, 2), "s"))
                goal = PAGE_KB if kind == "html" else None
                found.append(Result(f"{words}: {kind}, size", round(size, 1), "kB", goal))
        return found
    finally:
        await database.close()


async def fill(database: Database, devices: int) -> None:
    """Every device on its own day, one site in ten a little brighter in the last days."""
    rng = np.random.default_rng(5)
    layout, baseline = made(rng)
    even, shifted = (shares(layout, rng, mean) for mean in (0.5, 0.56))
    spans = [("day", timedelta(days=1), 8), ("hour", timedelta(hours=1), 48)]
    async with database.write() as tx:
        tx.add(
            tables.Release(
                model="digits", version="1.0.0", counter=1, manifest_digest="1", manifest=manifest(), escrow_key="",
                baseline=baseline.model_dump(mode="json"), published_by="ana", published_at=NOW,
            )
        )  # fmt: skip
        for number in range(devices):
            tx.add(
                tables.Device(
                    id=f"cam-{number:04d}", name="", site=f"site {number % SITES}", labels={}, sign_key=b"",
                    box_key=b"", api_key_hash="", enrolled_at=NOW, slots=[], serving={"digits": "1.0.0"},
                )
            )  # fmt: skip
        await tx.flush()
        for number in range(devices):
            for span, length, many in spans:
                start = NOW.replace(minute=0, hour=NOW.hour if span == "hour" else 0)
                for back in range(many):
                    odd = number % SITES % 10 == 0 and back < many // 3
                    vector = rng.poisson((shifted if odd else even) * SAMPLES / (24 if span == "hour" else 1))
                    tx.add(
                        tables.Sketch(
                            device_id=f"cam-{number:04d}", model="digits", version="1.0.0", span=span,
                            start=start - back * length, vector=pack(vector.astype(np.int64)),
                        )
                    )  # fmt: skip
            if number % 50 == 0:
                await tx.flush()


def made(rng: np.random.Generator) -> tuple[Layout, Baseline]:
    values = rng.normal(0.5, 0.1, 7000)
    edges = quantile_edges(list(values))
    counts = tuple(count(edges, values)[0])
    features = tuple(
        FeatureBaseline(name=f"input.channel_{number}", group="input", kind="quantity", edges=edges, counts=counts)
        for number in range(FEATURES)
    )
    baseline = Baseline(model="digits", version="1.0.0", samples=7000, features=features)
    return Layout.of(baselines.references(baseline.model_dump(mode="json"))), baseline


def shares(layout: Layout, rng: np.random.Generator, mean: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Of a normal around `mean` in the first feature, and of the reference in all others."""
    found = layout.vector / layout.vector[layout.places[layout.names[0]]].sum()
    first = layout.names[0]
    edges = layout.references[first].edges
    found[layout.places[first]] = np.array(count(edges, rng.normal(mean, 0.1, 50_000))[0]) / 50_000
    return np.asarray(found)


if __name__ == "__main__":
    raise SystemExit(main())
