import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.serving.observations import Observation, Sample, WorkerDied
from agent.telemetry.driver import Telemetry
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.pace import Pace
from shared.clock import SystemClock
from shared.identifiers import sha256
from shared.messages import SlotState, TelemetryWindow
from shared.sketches import Baseline, FeatureBaseline

BASELINE = Baseline(
    model="digits",
    version="1.0.0",
    samples=10,
    features=(FeatureBaseline(name="input.brightness", group="input", kind="quantity", edges=(0.5,), counts=(5, 5)),),
)


class Device:
    """A state folder with two slots, and a telemetry driver over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots: list[SlotState] = []
        self.serving: dict[str, str] = {}
        self.stored = 0
        self.outbox = Outbox(folder / "outbox.sqlite", device="dev-a", limit_bytes=10**6, clock=SystemClock())
        self.telemetry = Telemetry(
            self.outbox,
            state_dir=folder,
            boot="b1",
            pace=Pace(every=timedelta(seconds=0.01), quiet=timedelta(seconds=0.01), settle=timedelta()),
            slots=lambda: self.slots,
            serving=lambda: self.serving,
            stored=self._count,
            clock=SystemClock(),
        )

    def _count(self) -> None:
        self.stored += 1

    def hold(self, slot: str, version: str, state: str, *, baseline: bytes | None = None) -> None:
        place = self.folder / "models" / "digits" / slot
        place.mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").write_bytes(version.encode())
        (place / "baseline.json").write_bytes(BASELINE.model_dump_json().encode() if baseline is None else baseline)
        self.slots = [known for known in self.slots if known.slot != slot]
        self.slots.append(
            SlotState.model_validate({"slot": slot, "state": state, "model": "digits", "version": version})
        )

    def windows(self) -> list[TelemetryWindow]:
        return [message for message in self.outbox.peek(Kind.TELEMETRY, 0, 100) if isinstance(message, TelemetryWindow)]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def samples(version: str, number: int = 1) -> list[Observation]:
    return [Sample("digits", version, "r", 5.0, None, {"input.brightness": (0.1, 0.9)}) for _ in range(number)]


def test_a_window_counts_over_the_baseline_of_its_own_release(device: Device) -> None:
    device.hold("a", "1.0.0", "good")
    device.telemetry.observe(samples("1.0.0", 3))
    device.telemetry.cut()
    [window] = device.windows()
    assert (window.version, window.phase, window.requests) == ("1.0.0", "serving", 3)
    assert window.manifest == sha256(b"1.0.0")
    assert window.features["input.brightness"].counts == (3, 3)
    assert device.stored == 1


def test_two_versions_never_share_a_window(device: Device) -> None:
    device.hold("a", "1.0.0", "good")
    device.hold("b", "1.1.0", "probation")
    device.telemetry.observe([*samples("1.0.0"), *samples("1.1.0", 2), *samples("1.0.0", 3)])
    device.telemetry.cut()
    found = {(window.version, window.phase): window.requests for window in device.windows()}
    assert found == {("1.0.0", "serving"): 4, ("1.1.0", "probation"): 2}


def test_the_end_of_probation_cuts_the_window(device: Device) -> None:
    device.hold("a", "1.1.0", "probation")
    device.telemetry.observe(samples("1.1.0", 2))
    device.hold("a", "1.1.0", "good")
    device.telemetry.boundary()
    device.telemetry.observe(samples("1.1.0", 5))
    device.telemetry.cut()
    assert [(window.phase, window.requests) for window in device.windows()] == [("probation", 2), ("serving", 5)]


def test_the_window_of_a_release_that_was_rolled_back_is_told_at_once(device: Device) -> None:
    device.hold("a", "1.0.0", "good")
    device.hold("b", "1.2.0", "probation")
    device.telemetry.observe([*samples("1.2.0"), WorkerDied("digits", "1.2.0", "SIGSEGV")])
    device.slots = device.slots[:1]
    device.telemetry.boundary()
    [window] = device.windows()
    assert (window.version, window.requests, window.restarts) == ("1.2.0", 1, 1)
    device.telemetry.observe(samples("1.2.0"))  # a straggler of a slot that is empty now
    device.telemetry.cut()
    assert len(device.windows()) == 1


def test_a_machine_at_rest_tells_of_what_serves_and_of_nothing_else(device: Device) -> None:
    device.hold("a", "1.0.0", "good")
    device.hold("b", "1.1.0", "good")
    device.serving = {"digits": "1.1.0"}
    device.telemetry.cut()
    device.telemetry.cut()
    [window] = device.windows()
    assert (window.version, window.requests) == ("1.1.0", 0)
    assert window.host.memory_total_bytes is not None


def test_a_damaged_baseline_costs_the_features_only(device: Device) -> None:
    device.hold("a", "1.0.0", "good", baseline=b"{")
    device.telemetry.observe(samples("1.0.0", 2))
    device.telemetry.cut()
    [window] = device.windows()
    assert (window.requests, window.features) == (2, {})


def test_observations_of_an_unknown_release_are_dropped(device: Device) -> None:
    device.telemetry.observe(samples("9.9.9"))
    device.telemetry.cut()
    assert device.windows() == []


async def test_windows_end_by_themselves(device: Device) -> None:
    device.hold("a", "1.0.0", "good")
    device.telemetry.observe(samples("1.0.0"))
    task = asyncio.create_task(device.telemetry.run())
    async with asyncio.timeout(5):
        while not device.windows():  # noqa: ASYNC110 (the outbox is a file)
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture
def slow(tmp_path: Path) -> Device:
    device = Device(tmp_path)
    device.hold("a", "1.0.0", "good")
    device.serving = {"digits": "1.0.0"}
    device.clock = Hands()
    device.telemetry._clock = device.clock
    device.telemetry._pace = Pace(every=timedelta(minutes=1), quiet=timedelta(hours=1), settle=timedelta(minutes=10))
    device.telemetry._look()
    return device


def hours(device: Device, seconds: float, each: Callable[[], None] = lambda: None) -> None:
    """Let time pass, and the driver look every ten seconds."""
    until = device.clock.passed + seconds
    while device.clock.passed < until:
        device.clock.passed += 10
        each()
        device.telemetry._look()


def test_windows_of_a_version_grow_until_they_end_with_the_hour(slow: Device) -> None:
    hours(slow, 6 * 3600)
    lengths = [round((window.end - window.start) / timedelta(minutes=1)) for window in slow.windows()]
    assert lengths[:10] == [1] * 10
    assert lengths[10:14] == [2, 4, 8, 16]
    assert lengths[-3:] == [60, 60, 60]
    assert slow.windows()[-1].end.minute == 0


def test_a_failure_brings_the_end_of_a_long_window_near(slow: Device) -> None:
    hours(slow, 3 * 3600)
    known = len(slow.windows())
    slow.telemetry.observe([Sample("digits", "1.0.0", "r", 5.0, "timeout")])
    hours(slow, 70)
    assert len(slow.windows()) == known + 1
    assert slow.windows()[-1].errors == {"timeout": 1}


def test_a_clients_mistake_does_not(slow: Device) -> None:
    hours(slow, 3 * 3600)
    known = len(slow.windows())
    slow.telemetry.observe([Sample("digits", "1.0.0", "r", 5.0, "bad-request")])
    hours(slow, 70)
    assert len(slow.windows()) == known


def test_a_new_version_starts_with_short_windows(slow: Device) -> None:
    hours(slow, 3 * 3600)
    slow.hold("b", "1.1.0", "probation")
    slow.serving = {"digits": "1.1.0"}
    known = len(slow.windows())
    hours(slow, 300)
    assert [window.version for window in slow.windows()[known:]] == ["1.1.0"] * 4  # begun at the first look


def test_a_power_cut_costs_at_most_one_short_window(slow: Device) -> None:
    hours(slow, 3 * 3600)
    known = len(slow.windows())
    hours(slow, 1800, lambda: slow.telemetry.observe(samples("1.0.0")))
    assert len(slow.windows()) == known  # an hour is not yet over
    again = Outbox(slow.folder / "outbox.sqlite", device="dev-a", limit_bytes=10**6, clock=SystemClock())
    found = [message for message in again.peek(Kind.TELEMETRY, 0, 100) if isinstance(message, TelemetryWindow)]
    assert len(found) == known + 1
    assert 180 - 7 <= found[-1].requests <= 180
    assert found[-1].sequence == found[-2].sequence + 1


def test_what_was_told_is_not_told_again_after_a_restart(slow: Device) -> None:
    hours(slow, 3 * 3600, lambda: slow.telemetry.observe(samples("1.0.0")))
    slow.telemetry.cut()
    known = len(slow.windows())
    again = Outbox(slow.folder / "outbox.sqlite", device="dev-a", limit_bytes=10**6, clock=SystemClock())
    assert len(again.peek(Kind.TELEMETRY, 0, 100)) == known
