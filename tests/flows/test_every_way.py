"""One release reaches four devices, each by another way, and what passes is what was planned."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from fleet.demo import training
from fleet.demo.household import AGENT_SETTINGS, MANAGER_SETTINGS, Household
from fleet.demo.operator import Operator
from tests.simulators.counting_proxy import CountingProxy
from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow

NOWHERE = "http://127.0.0.1:9"
SHARES = {"share": "on", "address": "127.0.0.1", "port": 0}


@pytest.fixture
def open_fleet(tmp_path: Path, mosquitto: int) -> Iterator[Fleet]:
    """All ways are open: peers in the hall, chunks through the broker."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    mqtt = {"url": f"mqtt://127.0.0.1:{mosquitto}", "chunks": "on", "chunk_bytes_per_second": 10_000_000}
    household = Household(folder, settings={**MANAGER_SETTINGS, "mqtt": mqtt, "peers": {"sites": ["hall"]}})
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


def start(fleet: Fleet, device: str, manager_url: str, **settings: Any) -> None:
    """Enrol at the manager, then know it by `manager_url` only."""
    home = fleet.household.agent_folder(device)
    home.mkdir(parents=True)
    update = {
        **AGENT_SETTINGS["update"],
        "probation_seconds": 1,
        "probation_requests": 20,
        **settings.pop("update", {}),
    }
    (home / "agent.yaml").write_text(
        yaml.safe_dump({**AGENT_SETTINGS, **settings, "update": update, "state_dir": str(home)})
    )
    claim = fleet.operator.asks("device", "invite", "--site", "hall")["token"]
    enrol = [sys.executable, "-m", "agent", "enroll", fleet.url, "--token", claim, "--id", device]
    subprocess.run([*enrol, "--state-dir", str(home)], check=True, capture_output=True, timeout=60)
    path = home / "identity" / "enrolment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "manager_url": manager_url}))
    fleet.household.run_agent(device)
    fleet.watch(device)


def told(fleet: Fleet, device: str) -> dict[str, Any]:
    """The last word of a device about its update, as the manager keeps it."""

    def look() -> dict[str, Any] | None:
        with sqlite3.connect(fleet.database) as database:
            query = "SELECT body FROM reports WHERE device_id = ? AND phase = 'committed'"
            found = database.execute(query, (device,)).fetchone()
        return None if found is None else json.loads(found[0])

    return fleet.until(look)


def pieces_bytes(fleet: Fleet) -> int:
    text = httpx2.get(f"{fleet.url}/metrics", headers={"Authorization": f"Bearer {fleet.token}"}, trust_env=False).text
    (line,) = [line for line in text.splitlines() if line.startswith("flotilla_pieces_sent_bytes_total ")]
    return int(line.split()[1])


def test_a_release_comes_by_http_from_a_peer_through_the_broker_and_from_a_bundle(
    open_fleet: Fleet, tmp_path: Path
) -> None:
    fleet = open_fleet
    with ExitStack() as stack:
        counted = stack.enter_context(CountingProxy(fleet.url))
        # After the role of the model everything is verified, and the content key was in the announcement.
        cut = stack.enter_context(CountingProxy(fleet.url, cut_after=lambda path: ".model-digits.json" in path))
        start(fleet, "cam-http", counted.url, peers=SHARES)
        start(fleet, "cam-mqtt", NOWHERE, update={"mqtt_chunks": "on", "mqtt_after_seconds": 0.5})
        start(fleet, "cam-usb", NOWHERE)
        model = training.train(fleet.digits.train, hidden=8000, rounds=1, seed=0)  # several chunks
        fleet.publish_bytes("1.0.0", model, fleet.digits.reference)
        total = int(fleet.operator.asks("model", "show", "digits@1.0.0")["sealed_bytes"])
        assert total > 2_000_000

        first = fleet.start_rollout("1.0.0", "--target", "cam-http,cam-mqtt")
        usb = tmp_path / "usb"
        words = ("bundle", "export", "digits@1.0.0", "--device", "cam-usb", "--yes", "--output", str(usb))
        fleet.operator.asks(*words)
        config = str(fleet.household.agent_folder("cam-usb") / "agent.yaml")
        install = [sys.executable, "-m", "agent", "install", str(usb), "--config", config, "--json"]
        done = subprocess.run(install, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert fleet.ended(first)["state"] == "completed"

        start(fleet, "cam-peer", cut.url, peers=SHARES)
        known = fleet.household.agent_folder("cam-peer") / "peers.json"
        fleet.until(lambda: known.exists() or None)
        second = fleet.start_rollout("1.0.0", "--target", "cam-peer")
        ended = fleet.ended(second)
        assert ended["state"] == "completed", fleet.household.log("cam-peer", 60)
        assert cut.cut

        ways = {"cam-http": "manager", "cam-mqtt": "mqtt", "cam-usb": "bundle", "cam-peer": "peer"}
        for device, way in ways.items():
            report = told(fleet, device)
            assert (report["total_bytes"], report["fetched_bytes"]) == (total, total), device
            assert report["sources"] == {way: total}, device
        assert counted.chunk_bytes == total
        assert cut.chunk_bytes == 0
        assert total < pieces_bytes(fleet) < total + 64 * 1024  # and heads, the manifest, signed documents
        assert sum(path.stat().st_size for path in (usb / "chunks").glob("*/*")) == total
        assert ended["bytes"] == {"planned": total, "fetched": total, "by_source": {"peer": total}}
