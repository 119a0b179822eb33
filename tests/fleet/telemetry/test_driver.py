"""Windows in, verdicts and alerts out, with a real database and a clock that the test turns."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from fleet.alerts import desk
from fleet.hub import Hub
from fleet.settings import FleetSettings
from fleet.store import alerts, tables
from fleet.store.database import Database
from fleet.telemetry.driver import DriftDriver
from shared.sketches import Baseline, FeatureBaseline, count, quantile_edges

T0 = datetime(2026, 1, 1, tzinfo=UTC)
RNG = np.random.default_rng(7)
REFERENCE = RNG.normal(0.5, 0.1, 2000)
EDGES = quantile_edges(list(REFERENCE))
FEATURE = FeatureBaseline(
    name="input.brightness", group="input", kind="quantity", edges=EDGES, counts=tuple(count(EDGES, REFERENCE)[0])
)


@dataclass
class ManualClock:
    at: datetime = T0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        raise NotImplementedError


@dataclass
class World:
    settings: FleetSettings
    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    hub: Hub = field(default_factory=Hub)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.driver = DriftDriver(self)

    async def device(self, name: str, version: str = "1.0.0") -> None:
        async with self.database.write() as tx:
            tx.add(
                tables.Device(
                    id=name, name=name, labels={}, sign_key=b"", box_key=b"", api_key_hash="", enrolled_at=T0,
                    slots=[], serving={"digits": version},
                )
            )  # fmt: skip

    async def serve(self, name: str, version: str) -> None:
        async with self.database.write() as tx:
            (await tx.get_one(tables.Device, name)).serving = {"digits": version}

    async def send(self, device: str, mean: float, samples: int = 200, minutes: int = 1, **more: Any) -> None:
        """One window, some time after the one before; then a look."""
        self.sequence += 1
        self.clock.at += timedelta(minutes=minutes)
        counts = count(EDGES, RNG.normal(mean, 0.1, samples))[0]
        body = {
            "device": device, "stream": "s", "sequence": self.sequence, "at": T0.isoformat(), "boot": "b",
            "model": "digits", "version": "1.0.0", "manifest": "0" * 64, "phase": "serving",
            "start": self.clock.at.isoformat(), "end": self.clock.at.isoformat(), "requests": samples,
            "features": {"input.brightness": {"edges": FEATURE.digest, "counts": counts}}, **more,
        }  # fmt: skip
        async with self.database.write() as tx:
            tx.add(
                tables.Window(
                    device_id=device, stream="s", sequence=self.sequence, model="digits", version=body["version"],
                    start=self.clock.at, end=self.clock.at, received_at=self.clock.at,
                    requests=samples, failed=0, body=body,
                )
            )  # fmt: skip
        await self.driver.evaluate()

    async def state(self, scope: str, version: str = "1.0.0") -> tables.DriftState | None:
        async with self.database.read() as tx:
            return await tx.get(tables.DriftState, (scope, "digits", version, "input.brightness"))

    async def alerts(self) -> list[tables.Alert]:
        async with self.database.read() as tx:
            return list(await alerts.live(tx, kind="drift"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    window = {"detection_window_days": 1 / 24}  # one hour
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'fleet.sqlite'}")
    await database.open()
    found = World(FleetSettings.model_validate({"drift_detection": window}), database)
    async with database.write() as tx:
        for counter, version in enumerate(("1.0.0", "2.0.0"), start=1):
            baseline = Baseline(model="digits", version=version, samples=2000, features=(FEATURE,))
            tx.add(
                tables.Release(
                    model="digits", version=version, counter=counter, manifest_digest=str(counter), manifest=b"",
                    escrow_key="", baseline=baseline.model_dump(mode="json"), published_by="ana", published_at=T0,
                )
            )  # fmt: skip
    await found.device("cam-1")
    yield found
    await database.close()


async def test_collecting_then_ok_then_drifted_with_one_alert(world: World) -> None:
    await world.send("cam-1", 0.5, samples=40)
    row = await world.state("device:cam-1")
    assert row is not None
    assert (row.state, row.samples, row.body["text"]) == (
        "collecting", 40,
        "input.brightness: collecting (40 of 100); insufficient data: smallest detectable PSI = 1.26",
    )  # fmt: skip
    await world.send("cam-1", 0.5)
    assert (row := await world.state("device:cam-1")) is not None
    assert row.state == "ok"
    for _ in range(4):
        await world.send("cam-1", 0.3)
    (alert,) = await world.alerts()
    assert (alert.scope, alert.subject) == ("device:cam-1", "digits@1.0.0 input.brightness")
    assert alert.severity == "critical"
    assert alert.body["feature"] == "input.brightness"
    assert alert.body["psi"] >= 0.2
    assert "darker than the reference" in alert.text
    assert (row := await world.state("device:cam-1")) is not None
    assert sum(row.body["counts"]) == row.samples == 1040
    assert len(row.body["history"]) == 6


async def test_a_restart_changes_no_verdict_and_opens_nothing_twice(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    before = await world.state("device:cam-1")
    world.driver = DriftDriver(world)
    await world.driver.evaluate()
    after = await world.state("device:cam-1")
    assert before is not None
    assert after is not None
    assert (after.state, after.samples, after.since) == (before.state, before.samples, before.since)
    assert after.body["psi"] == before.body["psi"]
    assert len(await world.alerts()) == 1


async def test_an_alert_resolves_when_a_whole_window_is_quiet_and_not_before(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3, minutes=10)
    for _ in range(3):
        await world.send("cam-1", 0.5, minutes=10)
    assert len(await world.alerts()) == 1
    for _ in range(5):
        await world.send("cam-1", 0.5, minutes=10)
    assert await world.alerts() == []
    async with world.database.read() as tx:
        (alert,) = (await tx.scalars(select(tables.Alert))).all()
    assert (alert.state, alert.note) == ("resolved", "back to the reference")


async def test_silence_is_no_proof_that_drift_is_over(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    world.clock.at += timedelta(hours=3)
    await world.driver.evaluate()
    assert len(await world.alerts()) == 1


async def test_where_every_device_drifts_there_is_one_alert_for_the_fleet(world: World) -> None:
    await world.device("cam-2")
    await world.send("cam-2", 0.5)
    await world.send("cam-1", 0.3)
    assert [alert.scope for alert in await world.alerts()] == ["device:cam-1"]
    for _ in range(4):
        await world.send("cam-2", 0.3)
    await world.send("cam-1", 0.3)
    assert [alert.scope for alert in await world.alerts()] == ["fleet"]


async def test_counts_over_other_bins_are_refused_and_counted(world: World) -> None:
    await world.send("cam-1", 0.3, features={"input.brightness": {"edges": "f" * 16, "counts": [1, 2]}})
    assert await world.state("device:cam-1") is None
    assert world.driver.refused == 1


async def test_what_is_known_of_a_version_ends_with_its_service(world: World) -> None:
    await world.serve("cam-1", "2.0.0")
    for _ in range(3):
        await world.send("cam-1", 0.3, version="2.0.0")
    assert [alert.body["version"] for alert in await world.alerts()] == ["2.0.0"]
    await world.serve("cam-1", "1.0.0")
    await world.driver.evaluate()
    assert await world.alerts() == []
    assert await world.state("device:cam-1", "2.0.0") is None
    assert await world.state("fleet", "2.0.0") is None


async def test_a_resolved_alert_opens_anew_while_its_cause_goes_on(world: World) -> None:
    for _ in range(3):
        await world.send("cam-1", 0.3)
    (alert,) = await world.alerts()
    async with world.database.write() as tx:
        await desk.resolve(tx, alert.id, by="ana", note=None, now=world.clock.at)
    await world.send("cam-1", 0.3)
    (again,) = await world.alerts()
    assert again.id != alert.id


async def test_without_news_nothing_is_written(world: World) -> None:
    await world.send("cam-1", 0.5)
    seen = world.hub.count
    await world.driver.evaluate()
    assert world.hub.count == seen
