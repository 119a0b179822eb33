"""Windows with labels in, alerts of kind performance out."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from fleet.parts import Manager
from fleet.store import windows
from fleet.store.tables import Alert, Device, Release
from fleet.telemetry.performance import Tally
from fleet.telemetry.performance_driver import PerformanceDriver
from shared.manifest import Artifact, Chunk, Manifest, Runtime, Tensor
from shared.sketches import latency_bin
from tests.fleet.telemetry.test_ingest import window

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIGEST = "a" * 64


def manifest() -> bytes:
    chunk = Chunk(id=DIGEST, size_bytes=30, plain_bytes=10)
    part = Artifact(digest=DIGEST, size_bytes=10, chunks=(chunk,))
    tensor = Tensor(name="x", datatype="FP32", shape=(-1, 4))
    return Manifest(
        model="digits",
        version="1.0.0",
        counter=1,
        created=NOW,
        runtime=Runtime(ir_version=8, opset={"": 17}),
        inputs=(tensor,),
        outputs=(tensor,),
        latency_ms=1.0,
        metrics={"accuracy": 0.95, "precision": 0.95, "recall": 0.95},
        artifacts={"model": part, "golden": part, "baseline": part},
    ).to_bytes()


class Moved:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@pytest.fixture
async def parts(manager: Manager, enrolled) -> Manager:
    await enrolled("cam-1", serving={"digits": "1.0.0"})
    async with manager.database.write() as tx:
        fields = {"manifest_digest": DIGEST, "manifest": manifest(), "escrow_key": "", "baseline": {}}
        tx.add(Release(model="digits", version="1.0.0", counter=1, published_by="ada", published_at=NOW, **fields))
    return replace(manager, clock=Moved())


class Days:
    """What the device tells, one window after the other."""

    def __init__(self, manager: Manager) -> None:
        self.manager, self.driver, self.sequence = manager, PerformanceDriver(manager), 0

    async def hour(
        self, *, right: int = 0, wrong: int = 0, ms: float = 10.0, requests: int = 200, late: timedelta = timedelta()
    ) -> None:
        """One hour later it tells of an hour; `late` is how long ago that ended."""
        self.sequence += 1
        self.manager.clock.at += timedelta(hours=1)
        end = self.manager.clock.at - late
        some = (3, 3, right // 2), (5, 5, right - right // 2), (3, 5, wrong // 2), (5, 3, wrong - wrong // 2)
        pairs = tuple(pair for pair in some if pair[2])
        said = window(
            self.sequence, requests=requests, latency={latency_bin(ms): requests},
            labelled=right + wrong, correct=right, confusion=pairs, start=end - timedelta(hours=1), end=end,
        )  # fmt: skip
        async with self.manager.database.write() as tx:
            await windows.insert_windows(tx, [said], now=self.manager.clock.at)
        await self.driver.evaluate()

    async def alerts(self) -> list[tuple[str, str, str]]:
        async with self.manager.database.read() as tx:
            rows = (await tx.scalars(select(Alert).order_by(Alert.subject))).all()
        return [(row.subject, row.severity, row.state) for row in rows]


@pytest.fixture
def days(parts: Manager) -> Days:
    return Days(parts)


async def test_a_release_that_answers_worse_than_at_publish_raises_an_alert_and_it_ends(days: Days) -> None:
    for _ in range(3):
        await days.hour(right=95, wrong=5)
    assert await days.alerts() == []
    for _ in range(6):
        await days.hour(right=60, wrong=40)
    assert [row[0] for row in await days.alerts()] == [
        f"digits@1.0.0 {metric}" for metric in ("accuracy", "precision", "recall")
    ]
    assert {row[2] for row in await days.alerts()} == {"open"}
    for _ in range(40):
        await days.hour(right=96, wrong=4)
    assert {row[2] for row in await days.alerts()} == {"resolved"}


async def test_a_device_that_becomes_slower_than_it_was_raises_an_alert(days: Days) -> None:
    for _ in range(48):
        await days.hour(ms=10.0)
    for _ in range(20):
        await days.hour(ms=16.0)
    assert [row[0] for row in await days.alerts()] == ["digits@1.0.0 latency"]


@pytest.mark.parametrize("wide", ["accuracy_threshold", "precision_threshold", "recall_threshold", "latency_threshold"])
async def test_each_threshold_has_an_effect(days: Days, parts: Manager, wide: str) -> None:
    chosen = parts.settings.model_dump()
    chosen["thresholds"]["performance_drift"][wide] = 0.9
    chosen["monitoring"]["performance_degradation_threshold"] = 1.0
    days.driver = PerformanceDriver(replace(parts, settings=type(parts.settings).model_validate(chosen)))
    for _ in range(48):
        await days.hour(ms=10.0)
    for _ in range(20):
        await days.hour(right=60, wrong=40, ms=16.0)
    told = {row[0].split()[1] for row in await days.alerts()}
    assert told == {"accuracy", "precision", "recall", "latency"} - {wide.removesuffix("_threshold")}


@pytest.mark.parametrize(("minutes", "told"), [(0.002, ["digits@1.0.0 accuracy"]), (15, [])])
async def test_performance_is_looked_at_as_often_as_the_settings_say(
    days: Days, parts: Manager, minutes: float, told: list[str]
) -> None:
    """The first look is at the start; what came after it waits for the next."""
    chosen = parts.settings.model_dump()
    chosen["deployment"]["performance_monitoring_interval_minutes"] = minutes
    chosen["thresholds"]["performance_drift"] |= {"precision_threshold": 0.9, "recall_threshold": 0.9}
    driver = PerformanceDriver(replace(parts, settings=type(parts.settings).model_validate(chosen)))
    running = asyncio.create_task(driver.run())
    await asyncio.sleep(0.3)
    said = window(1, labelled=600, correct=300, confusion=((3, 3, 300), (3, 5, 300)))
    async with parts.database.write() as tx:
        await windows.insert_windows(tx, [said], now=NOW)
    await asyncio.sleep(1.0)
    running.cancel()
    await asyncio.wait([running])
    assert [row[0] for row in await days.alerts()] == told


async def test_a_past_that_is_not_looked_at_slows_nothing(days: Days, parts: Manager) -> None:
    chosen = parts.settings.model_dump()
    chosen["drift_detection"]["baseline_window_days"] = 2
    days.driver = PerformanceDriver(replace(parts, settings=type(parts.settings).model_validate(chosen)))
    for _ in range(48):
        await days.hour(ms=10.0)
    for _ in range(84):
        await days.hour(ms=16.0)
    assert {row[2] for row in await days.alerts()} == {"resolved"}  # three days later 16 ms are the past


async def test_a_restart_of_the_manager_changes_no_verdict(days: Days, parts: Manager) -> None:
    for _ in range(30):
        await days.hour(ms=10.0)
    for _ in range(20):
        await days.hour(right=60, wrong=40, ms=16.0)
    before = await days.alerts()
    days.driver = PerformanceDriver(parts)
    await days.driver.evaluate()
    assert await days.alerts() == before
    assert days.driver._floor > NOW + timedelta(hours=48)  # from sums, not from two days of windows
    places = {place: len(found) for place, found in days.driver._tallies.items()}
    assert places == {("cam-1", "digits"): 5}


async def test_what_comes_days_late_does_not_count_as_today(days: Days) -> None:
    for _ in range(24):
        await days.hour(right=95, wrong=5, ms=10.0)
    for _ in range(24):  # a backlog of bad days that are over
        await days.hour(right=20, wrong=80, ms=40.0, late=timedelta(days=4))
    assert await days.alerts() == []
    for _ in range(6):
        await days.hour(right=20, wrong=80)
    assert {row[0].split()[1] for row in await days.alerts()} == {"accuracy", "precision", "recall"}


async def test_a_clock_that_cannot_be_believed_counts_as_of_its_arrival(days: Days) -> None:
    for _ in range(6):
        await days.hour(right=20, wrong=80, late=timedelta(days=4000))
    assert {row[0].split()[1] for row in await days.alerts()} == {"accuracy", "precision", "recall"}


async def test_after_a_crash_sums_and_the_windows_beyond_them_are_all_there_is_once(days: Days, parts: Manager) -> None:
    for _ in range(5):
        await days.hour(right=10, wrong=1)
    days.driver._kept_at = days.manager.clock.at + timedelta(days=1)  # what comes now is not kept before the crash
    for _ in range(3):
        await days.hour(right=20, wrong=2)
    days.driver = PerformanceDriver(parts)
    await days.driver.evaluate()
    total = Tally()
    for versions in days.driver._tallies["cam-1", "digits"].values():
        for tally in versions.values():
            total.add(tally)
    assert (total.labelled, total.correct, total.latency.total()) == (5 * 11 + 3 * 22, 5 * 10 + 3 * 20, 8 * 200)
    assert total.confusion.total() == total.labelled


async def test_windows_are_read_page_by_page_and_each_once(days: Days, manager: Manager) -> None:
    for _ in range(7):
        await days.hour(right=1)
    async with manager.database.read() as tx:
        found = [row.name[2] async for row in windows.performances(tx, NOW, page=3)]
    assert found == [1, 2, 3, 4, 5, 6, 7]


async def test_what_no_longer_serves_raises_nothing(days: Days, manager: Manager) -> None:
    async with manager.database.write() as tx:
        device = await tx.get(Device, "cam-1")
        device.serving = {"digits": "1.1.0"}
    for _ in range(6):
        await days.hour(right=10, wrong=90)
    assert await days.alerts() == []
