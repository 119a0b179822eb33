"""A device that reaches only the broker gets its release, while the broker dies in between."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.demo.operator import Operator
from shared import pieces
from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow


class Mosquitto:
    """A real broker that can be killed and started again at its port."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed; make system-deps installs it")
        self._program, self._config = program, folder / "mosquitto.conf"
        self.port = free_port()
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
        self.start()

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([self._program, "-c", str(self._config)], **quiet)  # type: ignore[call-overload]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(tmp_path)
    try:
        yield found
    finally:
        found.kill()


@pytest.fixture
def slow_fleet(tmp_path: Path, broker: Mosquitto) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    mqtt = {"url": f"mqtt://127.0.0.1:{broker.port}", "chunks": "on", "chunk_bytes_per_second": 100_000}
    household = Household(folder, settings={**MANAGER_SETTINGS, "mqtt": mqtt})
    try:
        url, token = household.start_manager()
        operator = Operator(url=url, token=token, keys=folder / "keys", show=lambda _: None)
        operator.asks("init")
        fleet = Fleet(household, operator, url, token, broker.port)
        try:
            yield fleet
        finally:
            fleet.stop()
    finally:
        household.stop()


def sent_bytes(fleet: Fleet) -> int:
    import httpx2

    text = httpx2.get(f"{fleet.url}/metrics", headers={"Authorization": f"Bearer {fleet.token}"}, trust_env=False).text
    (line,) = [line for line in text.splitlines() if line.startswith("flotilla_pieces_sent_bytes_total ")]
    return int(line.split()[1])


def test_a_release_comes_through_the_broker_alone_and_survives_its_death(
    slow_fleet: Fleet, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = slow_fleet
    monkeypatch.setenv("FLOTILLA_UPDATE__MQTT_CHUNKS", "on")
    monkeypatch.setenv("FLOTILLA_UPDATE__MQTT_AFTER_SECONDS", "0.5")
    fleet.add_devices("cam-1")
    fleet.household.kill("cam-1")
    path = fleet.household.agent_folder("cam-1") / "identity" / "enrolment.json"
    enrolment = json.loads(path.read_text())
    enrolment["manager_url"] = f"http://127.0.0.1:{free_port()}"  # nobody listens there
    path.write_text(json.dumps(enrolment))
    fleet.household.run_agent("cam-1")
    fleet.publish("1.0.0")
    sealed = fleet.operator.asks("model", "show", "digits@1.0.0")["sealed_bytes"]
    rollout = fleet.start_rollout("1.0.0")
    fleet.until(lambda: sent_bytes(fleet) > sealed // 2 or None, 60)
    broker.kill()
    time.sleep(1)
    broker.start()
    ended = fleet.ended(rollout)
    assert ended["state"] == "completed", ended["reason"]
    assert fleet.serving("cam-1") == "1.0.0"
    total = sent_bytes(fleet)
    manifest_and_metadata = 64 * 1024
    assert sealed < total < sealed + manifest_and_metadata + 2 * pieces.PIECE_BYTES  # at most a window's part twice
    assert "falling back source=mqtt" in fleet.household.log("cam-1", 2000)
