"""`flotilla-fleet` as a process: it starts, says so, survives kill -9, ends in order, prepares and examines."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from fleet.preparing import CONFIG
from fleet.settings import FleetSettings
from fleet.store.database import HEAD

pytestmark = pytest.mark.flow
FREE = {"FLOTILLA_MQTT__EMBEDDED_PORT": "0", "FLOTILLA_SERVER__PORT": "0"}


class Started:
    """A running manager."""

    def __init__(self, folder: Path, systemd: socket.socket, **more: str) -> None:
        self.folder = folder
        environment = {**os.environ, **FREE, **more, "NOTIFY_SOCKET": systemd.getsockname()}
        command = [sys.executable, "-m", "fleet", "run", "--data-dir", str(folder)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._systemd = systemd

    def until(self, word: str) -> None:
        """Wait for a message to systemd."""
        self._systemd.settimeout(30)
        while word not in self._systemd.recv(4096).decode():
            continue

    @property
    def url(self) -> str:
        return str(json.loads((self.folder / "endpoints.json").read_text())["manager"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.folder / 'admin-token').read_text().strip()}"}


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        yield door


@pytest.fixture
def start(tmp_path: Path, systemd: socket.socket) -> Iterator[object]:
    running: list[Started] = []

    def make(**more: str) -> Started:
        running.append(Started(tmp_path / "fleet", systemd, **more))
        return running[-1]

    yield make
    for one in running:
        one.process.kill()
        one.process.communicate(timeout=20)


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet", *arguments]
    return subprocess.run(
        command, env={**os.environ, **FREE, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_starts_tells_systemd_and_ends_in_order(start, tmp_path: Path) -> None:
    manager = start(WATCHDOG_USEC="6000000")
    manager.until("READY=1")
    with httpx2.Client(base_url=manager.url, headers=manager.headers) as client:
        assert client.get("/api/v1/me").json()["role"] == "admin"
        assert client.get("/healthz").status_code == 200
    manager.until("WATCHDOG=1")
    assert (tmp_path / "fleet" / "admin-token").stat().st_mode & 0o777 == 0o600
    manager.process.send_signal(signal.SIGTERM)
    manager.until("STOPPING=1")
    out, err = manager.process.communicate(timeout=20)
    assert manager.process.returncode == 0, err
    assert "admin token" in out
    assert "Traceback" not in err


def test_kill_9_loses_nothing_and_the_next_start_serves(start) -> None:
    token = ""
    for round_ in range(3):
        manager = start()
        manager.until("READY=1")
        with httpx2.Client(base_url=manager.url, headers=manager.headers) as client:
            invites = client.get("/api/v1/invites").json()["items"]
            assert len(invites) == round_
            assert client.post("/api/v1/invites", json={}).status_code == 201
            assert client.get("/api/v1/audit/verify").json()["intact"] is True
        token = token or manager.headers["Authorization"]
        assert manager.headers["Authorization"] == token
        manager.process.kill()
        manager.process.communicate(timeout=20)


def test_a_live_stream_does_not_hold_up_the_end(start) -> None:
    manager = start()
    manager.until("READY=1")
    headers = {**manager.headers, "Accept": "text/event-stream"}
    with (
        httpx2.Client(base_url=manager.url) as client,
        client.stream("GET", "/api/v1/events", headers=headers) as stream,
    ):
        assert next(stream.iter_lines()) == ": connected"
        manager.process.send_signal(signal.SIGTERM)
        _, err = manager.process.communicate(timeout=15)
    assert manager.process.returncode == 0, err


def test_two_managers_do_not_share_a_folder(start, tmp_path: Path) -> None:
    start().until("READY=1")
    second = call("run", "--data-dir", str(tmp_path / "fleet"), "--json")
    assert second.returncode == 1
    assert json.loads(second.stdout)["code"] == "E_RUNNING"


def test_a_taken_port_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for key in ("FLOTILLA_SERVER__PORT", "FLOTILLA_MQTT__EMBEDDED_PORT"):
            found = call("run", "--data-dir", str(tmp_path / "fleet"), **{key: port})
            assert found.returncode == 1
            assert "error E_" in found.stderr
            assert "try: " in found.stderr
            assert "Traceback" not in found.stderr


def test_init_migrate_doctor(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    sick = call("doctor", "--data-dir", str(folder), "--json")
    assert sick.returncode == 1
    assert {one["what"] for one in json.loads(sick.stdout)["findings"] if one["state"] == "fail"} == {
        "disk",
        "keys",
        "database",
    }
    made = json.loads(call("init", "--data-dir", str(folder), "--json").stdout)
    assert made["config_written"] is True
    assert made["admin_token"] == (folder / "admin-token").read_text().strip()
    again = json.loads(call("init", "--data-dir", str(folder), "--json").stdout)
    assert (again["config_written"], again["admin_token"]) == (False, None)
    assert json.loads(call("migrate", "--data-dir", str(folder), "--json").stdout) == {"from": HEAD, "to": HEAD}
    well = call("doctor", "--data-dir", str(folder))
    assert well.returncode == 0, well.stdout
    assert "fix: flotilla init" in well.stdout
    (folder / "keys" / "pepper").chmod(0o644)
    assert call("doctor", "--data-dir", str(folder)).returncode == 1


def test_a_bad_setting_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("server:\n  prot: 1\n")
    found = call("run", "--data-dir", str(tmp_path))
    assert found.returncode == 2
    assert "fleet.yaml" in found.stderr
    assert "prot" in found.stderr


def test_the_written_configuration_holds_only_known_keys(tmp_path: Path) -> None:
    written = CONFIG.format(data_dir=tmp_path)
    FleetSettings.model_validate(yaml.safe_load(written))
    lines = [line.removeprefix("# ") for line in written.splitlines() if not line.startswith(("# Flotilla", "# Order"))]
    settings = FleetSettings.model_validate(yaml.safe_load("\n".join(lines)))
    assert settings.server.port == FleetSettings().server.port
