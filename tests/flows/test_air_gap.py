"""An agent that the network does not reach gets its releases from a folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow


def install(fleet: Fleet, device: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    home = fleet.household.agent_folder(device)
    words = ["-m", "agent", "install", str(folder), "--config", str(home / "agent.yaml"), "--json"]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def answered(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_device_cut_off_from_its_fleet_installs_a_bundle_and_reports_when_it_is_back(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.add_devices("cam-1", "cam-2")
    fleet.publish("1.0.0")
    fleet.publish("1.1.0")
    fleet.household.kill("cam-1")
    usb, second = tmp_path / "usb", tmp_path / "second"
    words = ("bundle", "export", "digits@1.0.0", "--device", "cam-1", "--yes", "--output")
    assert fleet.operator.asks(*words, str(usb))["devices"] == ["cam-1"]
    words = ("bundle", "export", "digits@1.1.0", "--device", "cam-1", "--yes", "--output")
    assert fleet.operator.asks(*words, str(second))["bytes"] > 1000
    fleet.household.kill("fleet")  # from here on nobody answers by HTTP, and nobody listens behind the broker

    prepared = answered(install(fleet, "cam-1", usb))
    assert [one["outcome"] for one in prepared["releases"]] == ["prepared"]
    fleet.household.run_agent("cam-1")
    camera = fleet.cameras[0]
    fleet.until(lambda: "1.0.0" in camera.tally.versions or None)
    done = answered(install(fleet, "cam-1", second))
    assert [one["outcome"] for one in done["releases"]] == ["committed"]
    assert [one["outcome"] for one in answered(install(fleet, "cam-1", second))["releases"]] == ["seen-before"]

    other = install(fleet, "cam-2", second)
    assert other.returncode == 1
    assert "E_BUNDLE_DEVICE" in other.stderr
    next((second / "chunks").glob("*/*")).unlink()
    broken = install(fleet, "cam-1", second)
    assert "E_BUNDLE" in broken.stderr or "seen-before" in broken.stdout

    fleet.household.start_manager()
    fleet.until(lambda: fleet.serving("cam-1") == "1.1.0" or None)
