"""The same contract against both: a manager in this process, and one that runs as a daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fleet.client import Fleet
from fleet.demo import training
from fleet.demo.household import AGENT_SETTINGS, MANAGER_SETTINGS, Household


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real classifier of digits; its reference data lies beside it as `.npz`."""
    digits = training.load()
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    path.write_bytes(training.train(digits.train, hidden=24, rounds=100, seed=1))
    np.savez(path.with_suffix(".npz"), images=digits.reference.images, y=digits.reference.labels)
    return path


@contextmanager
def daemon(folder: Path) -> Iterator[Fleet]:
    household = Household(folder)
    try:
        url, token = household.start_manager()
        with Fleet(url, token, keys=folder / "keys") as fleet:
            yield fleet
    finally:
        household.stop()


@contextmanager
def embedded(folder: Path) -> Iterator[Fleet]:
    with Fleet.embedded(folder / "fleet", settings=MANAGER_SETTINGS) as fleet:
        yield fleet


@pytest.fixture(scope="module", params=[embedded, daemon], ids=["embedded", "daemon"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with request.param(folder) as made:
        made.initialise()
        yield made


@pytest.fixture(scope="module")
def agents(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Household]:
    """Two real agents of that manager."""
    update = {**AGENT_SETTINGS["update"], "probation_limit_seconds": 4}  # nobody asks these models anything
    household = Household(tmp_path_factory.mktemp("agents"), agent_settings={**AGENT_SETTINGS, "update": update})
    claim = fleet.invites.create(uses=2, site="hall", labels={"line": "4"})["token"]
    try:
        for device in ("cam-1", "cam-2"):
            household.start_agent(device, manager=fleet.url, claim_token=claim)
        yield household
    finally:
        household.stop()
