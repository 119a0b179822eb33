"""Updates into the real endpoint: the engines of the self-test are those of the worker, memory for one version only."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from agent.serving.supervisor import Serving
from agent.settings import ServingSettings
from agent.update.standing import Standing
from shared.messages import Phase
from tests.simulators import accelerators
from tests.simulators.accelerators import CPU, TENSORRT
from tests.simulators.machine import Full
from tests.simulators.release_repository import ReleaseRepository
from tests.simulators.serving_device import ServingDevice
from tests.simulators.updating_device import with_settings


@pytest.fixture
def device(tmp_path: Path, repository: ReleaseRepository) -> ServingDevice:
    return ServingDevice(tmp_path / "state", repository)


@asynccontextmanager
async def served(device: ServingDevice, **settings: object) -> AsyncIterator[Serving]:
    """The device, on, with its real endpoint."""
    device.serving_settings = ServingSettings.model_validate({"http_port": 0, "grpc_port": None, **settings})
    async with device.on():
        yield cast(Serving, device.serving)


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - processes give no event
            await asyncio.sleep(0.02)


def standing(device: ServingDevice) -> Standing:
    (found,) = device.driver.standing()
    return found


async def test_the_worker_finds_the_engines_that_the_self_test_made_and_after_a_new_driver_they_are_made_anew(
    device: ServingDevice, repository: ReleaseRepository, models: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    device.settings = with_settings(probation_requests=1, probation_limit_seconds=0.2)
    folder = tmp_path_factory.mktemp("python")
    python = accelerators.interpreter(folder, build_seconds=0.5)
    release = repository.publish("digits", "1.0.0", models[0], providers=(TENSORRT, CPU))
    async with served(device, worker_python=python) as serving:
        await device.assign(release)
        assert (await device.end()).phase is Phase.COMMITTED
        assert serving.serving() == {"digits": "1.0.0"}
        first = accelerators.engines(device.folder)
        assert len(first) == 1
    async with served(device, worker_python=python) as serving:
        assert serving.serving() == {"digits": "1.0.0"}
        assert accelerators.engines(device.folder) == first
    accelerators.interpreter(folder, build_seconds=2.0, version="2.0")
    async with served(device, worker_python=python) as serving:  # a start does not wait for engines
        assert serving.serving() == {}
        assert standing(device).trouble is not None
        assert device.driver.troubles()["digits"].startswith("E_SAFE_MODE: E_ENGINES: ")
        await until(lambda: serving.serving() == {"digits": "1.0.0"})
        await until(lambda: device.driver.troubles() == {})
        assert set(accelerators.engines(device.folder)).isdisjoint(first)
        assert len(accelerators.engines(device.folder)) == 1


async def test_a_full_machine_exchanges_versions_one_after_the_other(
    device: ServingDevice, repository: ReleaseRepository, models: list[bytes]
) -> None:
    device.settings = with_settings(
        probation_requests=1, probation_limit_seconds=0.2, probation_seconds=0.1, memory_margin_bytes=0
    )
    async with served(device, when_memory_is_short="stop-start") as serving:
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        assert (await device.end()).phase is Phase.COMMITTED
    device.machine = Full()
    async with served(device, when_memory_is_short="stop-start") as serving:
        ids = [serving.process_of("digits", "1.0.0")]
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        assert (await device.end()).phase is Phase.COMMITTED
        assert serving.serving() == {"digits": "1.1.0"}
        assert serving.process_of("digits", "1.0.0") is None
        assert ids[0] is not None
    async with served(device, when_memory_is_short="refuse") as serving:
        await device.assign(repository.publish("digits", "1.2.0", models[2]))
        failed = await device.end()
        assert (failed.phase, failed.reason) == (Phase.FAILED, "E_MEMORY")
        assert serving.serving() == {"digits": "1.1.0"}
