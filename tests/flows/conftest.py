"""A real mosquitto, and a fleet that talks through it."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.demo.operator import Operator
from tests.simulators.fleet import Fleet


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a real mosquitto that lets anybody say anything: what a taken broker is."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed; make system-deps installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: int) -> Iterator[Fleet]:
    folder = tmp_path / "fleet-under-test"
    folder.mkdir()
    household = Household(folder, settings={**MANAGER_SETTINGS, "mqtt": {"url": f"mqtt://127.0.0.1:{mosquitto}"}})
    try:
        url, token = household.start_manager()
        operator = Operator(url=url, token=token, keys=folder / "keys", show=lambda _: None)
        operator.asks("init")
        fleet = Fleet(household, operator, url, token, mosquitto)
        try:
            yield fleet
        finally:
            fleet.stop()
    finally:
        household.stop()
