"""Manager and agents as real processes in one folder: started, asked for their addresses, stopped.

I/O: disk, process, clock.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from shared.errors import BrokenError

START_SECONDS = 60.0
STOP_SECONDS = 15.0
T = TypeVar("T")

#: Minutes and days of a real fleet, in seconds of a demo.
MANAGER_SETTINGS: Mapping[str, Any] = {
    "server": {"host": "127.0.0.1", "port": 0},
    "mqtt": {"embedded_port": 0},  # 1883 is taken wherever a broker is installed
    "drift_detection": {"min_samples_for_detection": 100, "detection_window_days": 12 / 86400},
    "deployment": {"deployment_timeout_minutes": 2},
}
AGENT_SETTINGS: Mapping[str, Any] = {
    "heartbeat_seconds": 5,
    "serving": {"http_port": 0, "grpc_port": 0},
    "update": {"probation_seconds": 3, "probation_requests": 60, "min_labelled": 20},
    "telemetry": {"window_seconds": 1, "quiet_window_seconds": 1, "resend_seconds": 5},
}


class DidNotStartError(BrokenError):
    """A part of the demo ended or stayed silent; its log tells why."""

    code = "E_DEMO_START"


@dataclass
class Household:
    """The processes of one demo. `folder` holds everything: configuration, state, logs."""

    folder: Path
    port: int = 0
    broker_port: int = 0
    settings: Mapping[str, Any] = field(default_factory=lambda: MANAGER_SETTINGS)
    agent_settings: Mapping[str, Any] = field(default_factory=lambda: AGENT_SETTINGS)
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def manager_folder(self) -> Path:
        return self.folder / "fleet"

    def agent_folder(self, device: str) -> Path:
        return self.folder / "agents" / device

    def start_manager(self) -> tuple[str, str]:
        """Manager, broker and dashboard in one process; its URL and an admin token. A restart keeps the addresses."""
        self.manager_folder.mkdir(parents=True, exist_ok=True)
        (self.manager_folder / "endpoints.json").unlink(missing_ok=True)
        config = self.folder / "fleet.yaml"
        settings = {**self.settings, "data_dir": str(self.manager_folder)}
        settings["server"] = {**settings["server"], "port": self.port}
        if self.broker_port:
            settings["mqtt"] = {**settings["mqtt"], "embedded_port": self.broker_port}
        config.write_text(yaml.safe_dump(settings))
        self._start("fleet", ["-m", "fleet", "run", "--config", str(config)])
        found = self.wait("fleet", lambda: _json(self.manager_folder / "endpoints.json"))
        self.port, self.broker_port = (int(urlsplit(found[part]).port or 0) for part in ("manager", "mqtt"))
        return found["manager"], (self.manager_folder / "admin-token").read_text().strip()

    def start_agent(self, device: str, *, manager: str, claim_token: str) -> None:
        """Enrol a device and run its agent. `endpoint` tells when it serves."""
        home = self.agent_folder(device)
        home.mkdir(parents=True, exist_ok=True)
        config = home / "agent.yaml"
        config.write_text(yaml.safe_dump({**self.agent_settings, "state_dir": str(home)}))
        enrol = ["enroll", manager, "--token", claim_token, "--id", device, "--state-dir", str(home)]
        self._start(f"{device}-enrol", ["-m", "agent", *enrol])
        self.wait(f"{device}-enrol", lambda: self._running[f"{device}-enrol"].poll() == 0 or None)
        self.run_agent(device)

    def run_agent(self, device: str) -> None:
        """Run the agent of an enrolled device. A restart keeps the address that applications know."""
        home = self.agent_folder(device)
        before = _json(home / "endpoints.json")
        pinned = {} if before is None else {"FLOTILLA_SERVING__HTTP_PORT": str(urlsplit(before["http"]).port)}
        self._start(device, ["-m", "agent", "run", "--config", str(home / "agent.yaml")], pinned)

    def endpoint(self, device: str) -> dict[str, Any]:
        """Where the device serves: `{"id", "http", "grpc", "uds"}`."""
        path = self.agent_folder(device) / "endpoints.json"
        return self.wait(device, lambda: _json(path))

    def wait(self, part: str, probe: Callable[[], T | None], seconds: float = START_SECONDS) -> T:
        """What `probe` finds, once it finds something.

        Raises:
            DidNotStartError: `part` ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = probe()
            if found is not None:
                return found
            if self._running[part].poll() not in (None, 0):
                break
            time.sleep(0.05)
        raise DidNotStartError(
            f"{part} did not come up:\n{self.log(part)}", remedy="read the log above; run with --dir to keep it"
        )

    def log(self, part: str, lines: int = 15) -> str:
        """The end of one process's log."""
        path = self.folder / f"{part}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def kill(self, part: str) -> None:
        """SIGKILL, as a power cut would."""
        self._running[part].kill()
        self._running[part].wait(STOP_SECONDS)

    def pid(self, part: str) -> int:
        """The process of a part."""
        return self._running[part].pid

    def runs(self, part: str) -> bool:
        """Whether it was started and has not ended."""
        return part in self._running and self._running[part].poll() is None

    def wait_end(self, part: str) -> None:
        """Return once the process of a part has ended by itself. Bounded as its start is."""
        self._running[part].wait(START_SECONDS)

    def stop(self) -> None:
        """Ask everything to end, agents first; then make it."""
        parts = [process for process in reversed(self._running.values()) if process.poll() is None]
        for process in parts:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in parts:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)

    def _start(self, part: str, arguments: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> None:
        with open(self.folder / f"{part}.log", "ab") as log:
            self._running[part] = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C reaches the demo only, which then ends the others in order
            )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found
