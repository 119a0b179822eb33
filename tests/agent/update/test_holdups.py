"""Updates wait for a machine that is too hot or too busy, visibly, and not for ever."""

import asyncio
from pathlib import Path

import pytest

from agent.serving.observations import Sample
from agent.telemetry.host import Machine
from agent.update.lifecycle import Draft
from agent.update.standing import Waiting
from shared.messages import Phase
from tests.simulators.machine import Orin
from tests.simulators.release_repository import ReleaseRepository
from tests.simulators.updating_device import Device, with_settings


@pytest.fixture
def orin(device: Device, tmp_path: Path) -> Orin:
    found = Orin(tmp_path / "orin")
    device.machine = Machine(tmp_path / "orin")
    device.settings = with_settings(defer_limit_seconds=20.0, memory_margin_bytes=0)
    return found


def waiting(device: Device) -> Waiting | None:
    found = [model.update.waiting for model in device.driver.standing() if model.update is not None]
    return found[0] if found else None


def told(device: Device) -> list[Draft]:
    return [draft for draft in device.reports if draft.reason == "E_CONDITIONS" and not draft.phase.final]


async def test_a_hot_machine_is_waited_for_and_everybody_sees_why(
    device: Device, repository: ReleaseRepository, models: list[bytes], orin: Orin
) -> None:
    orin.heat("tj-thermal", 91.0)
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        await device.until(lambda: bool(told(device)))
        (first,) = told(device)
        assert first.phase is Phase.STAGED
        assert (first.detail or "").startswith("91 C at tj-thermal, limit 85 C (power mode 2); until ")
        assert (first.detail or "").endswith("then: refuse")
        found = waiting(device)
        assert found is not None
        assert (found.code, found.detail) == ("E_CONDITIONS", first.detail)
        orin.heat("tj-thermal", 84.0)  # not cool enough yet
        await asyncio.sleep(1.5)
        assert waiting(device) is not None
        assert "self-test" not in device.marks
        orin.heat("tj-thermal", 70.0)
        await device.until(lambda: device.serves("1.0.0"))
        assert waiting(device) is None
        assert len(told(device)) == 1  # not again for each degree


async def test_a_machine_that_gets_hot_after_the_test_is_waited_for_before_the_swap(
    device: Device, repository: ReleaseRepository, models: list[bytes], orin: Orin
) -> None:
    mark = device._mark

    def heated(name: str) -> None:
        if name == "saved:self-tested":
            orin.brake("gpu-throttle-alert", 1)
        mark(name)

    device._mark = heated  # type: ignore[method-assign]
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        await device.until(lambda: bool(told(device)))
        assert told(device)[0].phase is Phase.SELF_TESTED
        assert "slows itself down: gpu-throttle-alert" in (told(device)[0].detail or "")
        assert not device.serves("1.0.0")
        orin.brake("gpu-throttle-alert", 0)
        await device.until(lambda: device.serves("1.0.0"))


@pytest.mark.parametrize(
    ("after", "phase", "reason"), [("refuse", Phase.FAILED, "E_CONDITIONS"), ("go-on", None, None)]
)
async def test_the_wait_has_a_limit(
    device: Device,
    repository: ReleaseRepository,
    models: list[bytes],
    orin: Orin,
    after: str,
    phase: Phase | None,
    reason: str | None,
) -> None:
    device.settings = with_settings(defer_limit_seconds=0.5, after_defer=after, memory_margin_bytes=0)
    orin.heat("cpu-thermal", 95.0)
    async with device.on():
        release = repository.publish("digits", "1.0.0", models[0])
        end = await device.install(release)
        assert (end.phase, end.reason) == (phase or Phase.COMMITTED, reason)
        if phase is not None:
            assert end.detail == "95 C at cpu-thermal, limit 85 C (power mode 2), for 0.5 s"
            orin.heat("cpu-thermal", 50.0)
            assert (await device.install(release)).phase is Phase.COMMITTED  # it was not the release's fault


async def test_a_newer_assignment_does_not_wait_behind_one_that_waits(
    device: Device, repository: ReleaseRepository, models: list[bytes], orin: Orin
) -> None:
    orin.heat("tj-thermal", 91.0)
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        await device.until(lambda: bool(told(device)))
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        assert (await device.end()).phase is Phase.CANCELLED
        orin.heat("tj-thermal", 60.0)
        await device.until(lambda: device.serves("1.1.0"))


async def test_an_endpoint_that_turns_requests_away_comes_first(
    device: Device, repository: ReleaseRepository, models: list[bytes], orin: Orin
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        device.driver.observe([Sample("digits", "1.0.0", "r", 0.0, "busy", {})])
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: bool(told(device)))
        assert "turns requests away" in (told(device)[0].detail or "")
        await device.until(lambda: device.serves("1.1.0"))  # ten calm seconds later
