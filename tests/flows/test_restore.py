"""Yesterday's backup in the place of a manager that was lost, while its devices lived on."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.simulators.fleet import MODEL, Fleet

pytestmark = pytest.mark.flow


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    return str(path)


def lost_and_restored(fleet: Fleet, file: Path, secret: str) -> dict[str, Any]:
    """Everything that the manager had on its disk is gone; a new machine gets the backup and the old fleet.yaml."""
    fleet.household.kill("fleet")
    shutil.rmtree(fleet.household.manager_folder)
    config = str(fleet.household.folder / "fleet.yaml")
    words = ["--passphrase-file", secret, "--config", config]
    done = fleet.operator.asks("backup", "restore", str(file), *words, "--yes")
    (fleet.household.manager_folder / "admin-token").write_text(fleet.token)  # the operator still knows it
    fleet.household.start_manager()
    return done


def windows(fleet: Fleet) -> list[tuple[str, int]]:
    with sqlite3.connect(fleet.database) as connection:
        return connection.execute("select version, sequence from windows order by sequence").fetchall()


def test_after_a_restore_devices_keep_what_they_serve_and_the_next_release_reaches_them(
    fleet: Fleet, tmp_path: Path, secret: str
) -> None:
    fleet.add_devices("cam-1")
    fleet.publish("1.0.0")
    assert fleet.roll_out("1.0.0")["state"] == "completed"
    fleet.until(lambda: windows(fleet) or None)
    file = tmp_path / "yesterday.backup"
    made = fleet.operator.asks("backup", "create", str(file), "--passphrase-file", secret)
    assert made["rows"]["releases"] == 1
    fleet.publish("1.1.0")  # what the backup knows nothing of
    assert fleet.roll_out("1.1.0")["state"] == "completed"
    assert fleet.serving("cam-1") == "1.1.0"

    lost_and_restored(fleet, file, secret)
    assert fleet.until(lambda: fleet.device("cam-1") if fleet.device("cam-1")["online"] else None)
    fleet.until(lambda: fleet.serving("cam-1") == "1.1.0" or None)
    found = fleet.operator.asks("doctor")["findings"]
    assert [one["fix"] for one in found if one["name"] == "trust"] == ["flotilla init, where the release keys are"]

    assert fleet.operator.asks("init")["changed"]
    fleet.until(lambda: any(version == "1.1.0" for version, _ in windows(fleet)) or None)  # its line goes on
    fleet.publish("1.2.0")
    ended = fleet.roll_out("1.2.0")
    assert ended["state"] == "completed", ended
    assert fleet.serving("cam-1") == "1.2.0"
    assert [camera.tally.failed for camera in fleet.cameras] == [0]
    refused = [one for one in fleet.operator.asks("alert", "list")["items"] if one["kind"] == "security"]
    assert refused == []
    assert fleet.operator.asks("model", "show", f"{MODEL}@1.2.0")["counter"] > 2
