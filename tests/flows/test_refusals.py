"""A taken broker says anything it likes: the agent refuses, reports why, and goes on serving."""

import asyncio
import dataclasses
import io
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from fleet.devices.assigning import Order
from fleet.releases import reference_run
from fleet.releases.director import Director
from fleet.releases.online_keys import OnlineKeys
from fleet.store import tables
from shared.messages import Announcement
from shared.mqtt_link import LinkSettings, MqttLink
from shared.topics import Address, Channel
from tests.flows.conftest import broker
from tests.simulators.fleet import Fleet, running

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One device that serves 1.0.0, and 1.1.0 published: what is refused leaves it so for the next test."""
    folder = tmp_path_factory.mktemp("refusals")
    with broker(folder) as port, running(folder / "fleet", port) as made:
        made.add_devices("cam-1")
        made.publish("1.0.0")
        assert made.roll_out("1.0.0")["state"] == "completed"
        made.publish("1.1.0")
        yield made


def say(fleet: Fleet, announcement: Announcement, *, device: str = "cam-1") -> None:
    """Put an announcement on the device's topic, as whoever holds the broker can."""

    async def publish() -> None:
        up = asyncio.Event()

        async def connected() -> None:
            up.set()

        settings = LinkSettings(f"mqtt://127.0.0.1:{fleet.broker_port}", "mallory", None, None)
        link = MqttLink(settings, subscriptions=[], on_connect=connected)
        task = asyncio.create_task(link.run())
        try:
            await asyncio.wait_for(up.wait(), 10)
            await link.publish(str(Address(device, Channel.ANNOUNCE)), announcement.to_bytes(), timeout_seconds=10)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(publish())


def timestamp(fleet: Fleet) -> str:
    return httpx2.get(f"{fleet.url}/metadata/timestamp.json").text


def signed_by(fleet: Fleet, keys: OnlineKeys, *, device: str, version: int, release: str) -> str:
    """An assignment as the manager would make it, had it these keys."""
    database = stored_release(fleet, release)
    box = stored_device(fleet, "cam-1")["box_key"]
    own = OnlineKeys.open(fleet.household.manager_folder / "keys")
    signer = OnlineKeys(keys.snapshot, keys.timestamp, keys.director, own.escrow)
    return Director(signer).assign(
        device=device, box_key=box, release=database, order=Order("ro-evil"), version=version, now=datetime.now(UTC)
    )


def rows(fleet: Fleet, query: str) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{fleet.database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def stored_release(fleet: Fleet, version: str) -> tables.Release:
    row = next(it for it in rows(fleet, "select * from releases") if it["version"] == version)
    return tables.Release(
        model=row["model"],
        version=row["version"],
        manifest_digest=row["manifest_digest"],
        manifest=row["manifest"],
        escrow_key=row["escrow_key"],
    )


def stored_device(fleet: Fleet, device: str) -> dict[str, Any]:
    return next(it for it in rows(fleet, "select * from devices") if it["id"] == device)


def refusals(fleet: Fleet) -> set[str]:
    found = rows(fleet, "select body from reports where phase in ('refused', 'failed')")
    return {json.loads(row["body"])["reason"] for row in found}


def stays_and_reports(fleet: Fleet, reason: str, *, serving: str = "1.0.0") -> None:
    fleet.until(lambda: (reason in refusals(fleet)) or None)
    camera = fleet.cameras[0]
    before = camera.tally.requests
    fleet.until(lambda: (camera.tally.requests > before + 10) or None)
    assert camera.tally.failed == 0, camera.tally.last_failure
    assert camera.tally.versions <= {"1.0.0", serving}
    assert fleet.serving("cam-1") == serving


def test_an_announcement_signed_by_an_unknown_key_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    mallory = OnlineKeys.open(tmp_path / "mallory")
    forged = signed_by(fleet, mallory, device="cam-1", version=99, release="1.1.0")
    say(fleet, Announcement(timestamp=timestamp(fleet), assignment=forged))
    stays_and_reports(fleet, "E_SIGNATURE")


def test_an_announcement_for_another_device_is_refused(fleet: Fleet) -> None:
    own = OnlineKeys.open(fleet.household.manager_folder / "keys")
    other = signed_by(fleet, own, device="cam-2", version=99, release="1.1.0")
    say(fleet, Announcement(timestamp=timestamp(fleet), assignment=other))
    stays_and_reports(fleet, "E_WRONG_DEVICE")


def damage(chunk: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "version", "reason"),
    [
        pytest.param("chunk", "1.1.1", "E_CHUNK_DAMAGED", id="a chunk with one flipped bit"),
        pytest.param("golden", "1.1.2", "E_GOLDEN_MISMATCH", id="golden outputs that differ"),
    ],
)
def test_content_that_is_not_what_was_signed_or_promised_is_refused(
    fleet: Fleet, spoil: str, version: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spoil == "chunk":
        fleet.publish(version)
        manifest = json.loads(stored_release(fleet, version).manifest)
        name = manifest["artifacts"]["model"]["chunks"][0]["id"]
        damage(next((fleet.household.manager_folder / "depot").rglob(name)))
    else:
        publish_with_wrong_golden(fleet, version, monkeypatch)
    rollout = fleet.start_rollout(version)
    stays_and_reports(fleet, reason)
    ended = fleet.ended(rollout)
    assert ended["state"] in {"rolled-back", "aborted", "failed"}
    assert reason in json.dumps(ended)


def publish_with_wrong_golden(fleet: Fleet, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher whose runtime answers otherwise than the devices' does."""
    measure = reference_run.run

    def elsewhere(*arguments: Any, **named: Any) -> reference_run.Measured:
        measured = measure(*arguments, **named)
        return dataclasses.replace(measured, golden=shifted(measured.golden))

    monkeypatch.setattr(reference_run, "run", elsewhere)
    fleet.publish(version)


def shifted(golden: bytes) -> bytes:
    with np.load(io.BytesIO(golden)) as arrays:
        found = {name: array + (0.05 if name.startswith("output.") else 0) for name, array in arrays.items()}
    out = io.BytesIO()
    np.savez(out, **found)
    return out.getvalue()


def test_an_older_announcement_replayed_is_refused(fleet: Fleet) -> None:
    """The last one, since it leaves another version behind."""
    old = stored_device(fleet, "cam-1")["assigned"]
    assert fleet.roll_out("1.1.0")["state"] == "completed"
    say(fleet, Announcement(timestamp=timestamp(fleet), assignment=old))
    stays_and_reports(fleet, "E_REPLAYED", serving="1.1.0")
