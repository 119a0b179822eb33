"""Bundles as the manager makes them: what they carry, for whom, and how long."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.update.bundle import BundleFolder
from agent.update.journal import Journal
from agent.update.lifecycle import State
from agent.update.trust import Trust
from fleet.store import devices
from fleet.store.tables import Device
from shared import signing
from shared.bundle import BundleExpiredError
from shared.clock import SystemClock
from tests.fleet.releases.conftest import Hands, Workshop


@pytest.fixture
def box() -> signing.PrivateKey:
    return signing.PrivateKey.generate()


async def _add(tx, name: str, box, site: str = "", lifecycle: str = "active") -> None:
    tx.add(
        Device(
            id=name, name=name, site=site, labels={}, sign_key=b"s" * 32, box_key=bytes(box.public_key),
            api_key_hash=name, enrolled_at=datetime.now(UTC), slots=[], serving={}, lifecycle=lifecycle,
        )
    )  # fmt: skip


def trust(workshop: Workshop, box, folder: Path, name: str, clock=None) -> Trust:
    root = workshop.write(workshop.manager.repository.document, "1.root.json")
    journal = Journal(folder / f"{name}.sqlite")
    return Trust(
        journal,
        root=root,
        device=name,
        manager_url="http://127.0.0.1:9",
        box_key=bytes(box),
        clock=clock or SystemClock(),
    )


async def test_a_bundle_for_a_site_is_believed_by_each_of_its_devices_and_by_no_other(founded, box, tmp_path):
    founded.publish("1.0.0")
    for name, site in (("cam-1", "hall"), ("cam-2", "hall"), ("cam-3", "yard")):
        founded.write(_add, name, box, site)
    made = founded.asks(
        "bundle", "export", "digits@1.0.0", "--site", "hall", "--output", str(tmp_path / "usb"), "--yes"
    )
    assert made["devices"] == ["cam-1", "cam-2"]
    bundle = BundleFolder(tmp_path / "usb")
    for name in ("cam-1", "cam-2"):
        believer = trust(founded, box, tmp_path, name)
        (number,) = bundle.numbers(name)
        update = await believer.verify_bundle(bundle, number)
        assert update is not None
        assert update.state is State.VERIFIED
        assert len(believer.content_key(update)) == signing.CONTENT_KEY_BYTES
        bundle.check(update.manifest)
    assert founded.write(devices.get, "cam-3").assignment == 0
    late = trust(founded, box, tmp_path, "cam-1", clock=Hands(datetime.now(UTC) - datetime(2020, 1, 1, tzinfo=UTC)))
    with pytest.raises(BundleExpiredError):
        await late.verify_bundle(bundle, 1)


def test_a_plan_assigns_nothing_and_writes_nothing(founded, box, tmp_path):
    founded.publish("1.0.0")
    founded.write(_add, "cam-1", box)
    words = ("bundle", "export", "digits@1.0.0", "--device", "cam-1", "--output", str(tmp_path / "usb"))
    assert founded.asks(*words, "--plan")["devices"] == ["cam-1"]
    assert founded.write(devices.get, "cam-1").assignment == 0
    assert not (tmp_path / "usb").exists()
    refused = founded.flotilla(*words)
    assert refused.exit_code == 2
    assert "--yes" in refused.output


def test_a_withdrawn_release_goes_into_no_bundle_and_shows_why(founded, box, tmp_path):
    founded.publish("1.0.0")
    founded.publish("1.1.0")
    founded.write(_add, "cam-1", box)
    founded.write(_serve, "cam-1", "1.1.0")
    assert founded.flotilla("model", "withdraw", "digits@1.1.0").exit_code == 2  # without a reason
    withdraw = ("model", "withdraw", "digits@1.1.0", "--reason", "sees sevens")
    plan = founded.flotilla(*withdraw, "--plan")
    assert "digits@1.1.0 would be withdrawn" in plan.output
    assert "serves   on cam-1, which holds no other version" in plan.output
    refused = founded.flotilla(*withdraw)
    assert "1 device keeps it" in refused.output
    assert "--yes" in refused.output
    assert founded.asks(*withdraw, "--yes")["serving"] == [{"device": "cam-1", "back_to": None, "by": None}]
    words = ("bundle", "export", "digits@1.1.0", "--device", "cam-1", "--output", str(tmp_path / "usb"), "--yes")
    result = founded.flotilla(*words, "--json")
    assert (result.exit_code, json.loads(result.stdout)["code"]) == (5, "E_WITHDRAWN")
    shown = founded.flotilla("model", "show", "digits@1.1.0").output
    assert "digits@1.1.0  withdrawn" in shown
    assert "by test-admin: sees sevens" in shown
    assert "serves on  1 device: cam-1" in shown
    assert founded.asks("model", "list")["items"][0]["latest"] == "1.0.0"
    states = {one["version"]: one["withdrawn"] for one in founded.asks("model", "show", "digits")["items"]}
    assert states["1.0.0"] is None
    assert states["1.1.0"]["reason"] == "sees sevens"
    assert founded.asks("model", "withdraw", "digits", "1.1.0", "--undo", "--reason", "the lamp")["withdrawn"] is None
    assert founded.asks(*words)["devices"] == ["cam-1"]
    unknown = founded.flotilla("model", "withdraw", "digits@9.0.0", "--reason", "x", "--yes")
    assert (unknown.exit_code, "E_RELEASE_UNKNOWN" in unknown.output) == (3, True)


async def _serve(tx, name: str, version: str) -> None:
    (await tx.get_one(Device, name)).serving = {"digits": version}


WRONG = [
    (("digits@1.0.0", "--device", "cam-9", "--yes"), "E_NOT_FOUND"),
    (("digits@9.0.0", "--device", "cam-1", "--yes"), "E_NOT_FOUND"),
    (("digits@1.0.0", "--device", "cam-2", "--yes"), "E_CONFLICT"),
    (("digits@1.0.0", "--site", "nowhere", "--yes"), "E_NOT_FOUND"),
    (("digits@1.0.0", "--yes"), "E_USAGE"),
    (("digits", "--device", "cam-1", "--yes"), "E_USAGE"),
    (("digits@1.0.0", "--device", "cam-1", "--expires", "366d", "--yes"), "E_BUNDLE_LIFE"),
]


def test_what_cannot_be_exported_is_told_and_nothing_is_written(founded, box, tmp_path):
    founded.publish("1.0.0")
    founded.write(_add, "cam-1", box)
    founded.write(_add, "cam-2", box, lifecycle="revoked")
    for words, code in WRONG:
        result = founded.flotilla("bundle", "export", *words, "--output", str(tmp_path / "usb"), "--json")
        assert result.exit_code != 0, words
        assert json.loads(result.stdout)["code"] == code
        assert not (tmp_path / "usb" / "bundle.json").exists()


def test_a_folder_that_is_not_empty_is_left_alone(founded, box, tmp_path):
    founded.publish("1.0.0")
    founded.write(_add, "cam-1", box)
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "mine").write_text("precious")
    words = ("bundle", "export", "digits@1.0.0", "--device", "cam-1", "--output", str(tmp_path / "usb"), "--yes")
    assert "not empty" in founded.flotilla(*words).output
    assert founded.write(devices.get, "cam-1").assignment == 0
