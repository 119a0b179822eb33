"""The first command of every new user: it must work, as told, in time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.demo.household import Household
from shared.identifiers import sha256

SECONDS = 120


@pytest.mark.flow
def test_the_demo_tells_its_whole_story(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    told = subprocess.run(
        [sys.executable, "-m", "fleet.cli", "demo", "--once", "--json", "--dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-4000:]
    outcome = json.loads(told.stdout)
    assert outcome["devices"] == ["cam-1", "cam-2", "cam-3"]
    assert outcome["releases"] == ["1.0.0", "1.1.0", "1.2.0"]
    assert set(outcome["deployed"].values()) == {"1.1.0"}
    assert outcome["canary"]["state"] == "completed"
    assert outcome["bad_release"]["state"] == "rolled-back"
    assert "E_PROBATION" in outcome["bad_release"]["reason"]
    assert len(outcome["bad_release"]["exposed_devices"]) == 1
    assert outcome["drift"]["state"] == "drifted"
    assert outcome["drift"]["psi"] > 0.2
    assert outcome["drift"]["alert_id"]
    assert outcome["inference"]["failed"] == 0
    assert outcome["inference"]["requests"] >= 5000
    assert outcome["seconds"] < SECONDS
    assert {"manager", "token", "agents"} <= json.loads((folder / "endpoints.json").read_text()).keys()


@pytest.mark.flow
def test_the_demo_needs_no_fixed_port_and_a_restart_keeps_its_ports(tmp_path: Path) -> None:
    household = Household(tmp_path)
    try:
        household.start_manager()
        before = household.port, household.broker_port
        household.kill("fleet")
        household.start_manager()
        assert (household.port, household.broker_port) == before
        assert 1883 not in before
    finally:
        household.stop()


def test_training_is_the_same_every_time() -> None:
    from fleet.demo import training

    digits = training.load()
    first, second = (training.train(digits.train, hidden=8, rounds=3, seed=1) for _ in range(2))
    assert sha256(first) == sha256(second)
