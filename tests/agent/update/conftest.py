"""A manager, a device and models for the tests of updates."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulators.release_repository import ReleaseRepository, tiny_model
from tests.simulators.updating_device import Device


@pytest.fixture
def repository() -> Iterator[ReleaseRepository]:
    with ReleaseRepository() as repository:
        yield repository


@pytest.fixture
def device(tmp_path: Path, repository: ReleaseRepository) -> Device:
    return Device(tmp_path / "state", repository)


@pytest.fixture(scope="session")
def models() -> list[bytes]:
    return [tiny_model(seed) for seed in range(4)]
