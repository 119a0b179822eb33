"""Fetched and tested ahead, swapped inside the window, told to everybody."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.update.lifecycle import Draft
from shared.clock import SystemClock
from shared.messages import Phase
from tests.simulators.release_repository import ReleaseRepository
from tests.simulators.updating_device import WAIT_SECONDS, Device, with_settings


class Shifted(SystemClock):
    """The wall clock, and later."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


def in_two_hours() -> dict[str, Any]:
    start = datetime.now(UTC) + timedelta(hours=2)
    return {"start": f"{start:%H:%M}", "end": f"{start + timedelta(hours=1):%H:%M}", "zone": "UTC"}


def told(device: Device) -> list[Draft]:
    return [draft for draft in device.reports if draft.reason == "E_WINDOW"]


@pytest.fixture
def clock(device: Device) -> Shifted:
    device.clock = found = Shifted()
    device.settings = with_settings(defer_limit_seconds=2.0)
    return found


async def test_an_update_is_ready_before_its_window_and_swapped_in_it(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]), window=in_two_hours())
        await device.until(lambda: bool(told(device)))
        (first,) = told(device)
        assert first.phase is Phase.SELF_TESTED
        assert "UTC, next at " in (first.detail or "")
        (standing,) = device.driver.standing()
        assert standing.update is not None
        assert standing.update.waiting is not None
        assert standing.update.waiting.code == "E_WINDOW"
        assert standing.slots["b"].state == "tested"
        assert device.serves("1.0.0")
        clock.ahead = timedelta(hours=2, minutes=2)
        await device.until(lambda: device.serves("1.1.0"))
        (standing,) = device.driver.standing()
        assert standing.update is not None
        assert standing.update.waiting is None


async def test_a_restart_waits_on_without_a_manager(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]), window=in_two_hours())
        await device.until(lambda: bool(told(device)))
    device.reports.clear()
    async with device.on():
        await device.until(lambda: bool(told(device)))
        assert device.serves("1.0.0")
        clock.ahead = timedelta(hours=2, minutes=2)
        await device.until(lambda: device.serves("1.1.0"))


async def test_an_assignment_of_the_same_release_without_a_window_ends_the_wait(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        release = repository.publish("digits", "1.1.0", models[1])
        await device.assign(release, window=in_two_hours())
        await device.until(lambda: bool(told(device)))
        end = await device.install(release, rollout="ro-now")
        assert (end.phase, end.rollout) == (Phase.COMMITTED, "ro-now")


async def test_a_newer_release_does_not_wait_behind_the_window_of_an_older_one(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]), window=in_two_hours())
        await device.until(lambda: bool(told(device)))
        await device.assign(repository.publish("digits", "1.2.0", models[2]))
        assert (await device.end()).phase is Phase.CANCELLED
        await device.until(lambda: device.serves("1.2.0"))


async def test_a_swap_that_had_begun_is_watched_to_its_end_outside_of_the_window(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted, tmp_path: Path
) -> None:
    class Cut(BaseException):
        """Power is gone."""

    mark = device._mark

    def cut(name: str) -> None:
        mark(name)
        if name == "swap":
            raise Cut

    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
    clock.ahead = timedelta(hours=2, minutes=2)
    device._mark = cut  # type: ignore[method-assign]

    async def until_the_cut() -> None:
        async with device.on():
            await device.assign(repository.publish("digits", "1.1.0", models[1]), window=in_two_hours())
            await device.end()

    with pytest.raises(BaseExceptionGroup) as caught:
        await until_the_cut()
    assert caught.group_contains(Cut)
    device._mark = mark  # type: ignore[method-assign]
    device.reports.clear()
    clock.ahead = timedelta(hours=8)
    async with device.on():
        await device.until(lambda: device.serves("1.1.0"))
        async with asyncio.timeout(WAIT_SECONDS):
            while not any(draft.phase.final for draft in device.reports):
                device.traffic(200, correct=True)  # it counts from the moment on when it is watched again
                await asyncio.sleep(0.01)
        assert (await device.end()).phase is Phase.COMMITTED
        assert told(device) == []


async def test_a_device_that_serves_nothing_does_not_wait(
    device: Device, repository: ReleaseRepository, models: list[bytes], clock: Shifted
) -> None:
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]), window=in_two_hours())
        await device.until(lambda: device.serves("1.0.0"))


@pytest.mark.parametrize(
    ("custom", "reason"),
    [({"window": {"start": "02:00", "end": "04:00", "zone": "Mars/Base"}}, "E_ZONE"), ({"colour": "red"}, "E_TRUST")],
)
async def test_what_a_device_does_not_understand_of_an_assignment_is_refused(
    device: Device, repository: ReleaseRepository, models: list[bytes], custom: dict[str, Any], reason: str
) -> None:
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]), **custom)
        await device.until(lambda: any(draft.phase is Phase.REFUSED for draft in device.reports))
        (refused,) = [draft for draft in device.reports if draft.phase is Phase.REFUSED]
        assert refused.reason == reason
