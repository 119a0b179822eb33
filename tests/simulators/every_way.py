"""A fleet to which every way is open, and devices that know their manager by one way only."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from fleet.demo.household import AGENT_SETTINGS
from tests.simulators.fleet import Fleet, running

SITE = "hall"
SHARES = {"share": "on", "address": "127.0.0.1", "port": 0}
BROKER_ONLY = {"mqtt_chunks": "on", "mqtt_after_seconds": 0.5}


@contextmanager
def every_way(folder: Path, broker_port: int) -> Iterator[Fleet]:
    """A manager whose site shares, and who sends chunks through the broker at `broker_port`."""
    mqtt = {"url": f"mqtt://127.0.0.1:{broker_port}", "chunks": "on", "chunk_bytes_per_second": 10_000_000}
    with running(folder, broker_port, mqtt=mqtt, peers={"sites": [SITE]}) as fleet:
        yield fleet


def start(fleet: Fleet, device: str, manager_url: str, **settings: Any) -> None:
    """Enrol at the manager, then know it by `manager_url` only."""
    home = fleet.household.agent_folder(device)
    home.mkdir(parents=True)
    quick = {"probation_seconds": 1, "probation_requests": 20}
    update = {**AGENT_SETTINGS["update"], **quick, **settings.pop("update", {})}
    written = {**AGENT_SETTINGS, **settings, "update": update, "state_dir": str(home)}
    (home / "agent.yaml").write_text(yaml.safe_dump(written))
    claim = fleet.operator.asks("device", "invite", "--site", SITE)["token"]
    enrol = [sys.executable, "-m", "agent", "enroll", fleet.url, "--token", claim, "--id", device]
    subprocess.run([*enrol, "--state-dir", str(home)], check=True, capture_output=True, timeout=120)
    path = home / "identity" / "enrolment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "manager_url": manager_url}))
    fleet.household.run_agent(device)
    fleet.watch(device)


def bring(fleet: Fleet, device: str, release: str, folder: Path) -> int:
    """Export a bundle and install it; bytes of chunks that it holds."""
    words = ("bundle", "export", release, "--device", device, "--yes", "--output", str(folder))
    fleet.operator.asks(*words)
    config = str(fleet.household.agent_folder(device) / "agent.yaml")
    install = [sys.executable, "-m", "agent", "install", str(folder), "--config", config, "--json"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return sum(path.stat().st_size for path in (folder / "chunks").glob("*/*"))


def knows_peers(fleet: Fleet, device: str) -> None:
    """Returns when the device knows whom to ask without its manager."""
    path = fleet.household.agent_folder(device) / "peers.json"
    fleet.until(lambda: path.exists() or None)


def told(fleet: Fleet, device: str, version: str) -> dict[str, Any]:
    """The last word of a device about its update, as the manager keeps it."""

    def look() -> dict[str, Any] | None:
        with sqlite3.connect(fleet.database) as database:
            query = "SELECT body FROM reports WHERE device_id = ? AND phase = 'committed'"
            found = [json.loads(row[0]) for row in database.execute(query, (device,))]
        return next((body for body in found if body["version"] == version), None)

    return fleet.until(look, 120)


def pieces_bytes(fleet: Fleet) -> int:
    """What the manager sent through the broker, heads included."""
    text = httpx2.get(f"{fleet.url}/metrics", headers={"Authorization": f"Bearer {fleet.token}"}, trust_env=False).text
    (line,) = [line for line in text.splitlines() if line.startswith("flotilla_pieces_sent_bytes_total ")]
    return int(line.split()[1])
