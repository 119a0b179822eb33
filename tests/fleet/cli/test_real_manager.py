"""The commands against a manager that runs as a process, with devices that enrol themselves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from agent import identity
from agent.__main__ import main as agent
from fleet.cli.__main__ import cli
from fleet.cli.errors import Exit
from shared import seal
from shared.leaving import TOPIC, Goodbye

pytestmark = pytest.mark.flow

Asking = Callable[..., Any]
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and admin token."""
    folder = tmp_path_factory.mktemp("fleet")
    settings = folder / "fleet.yaml"
    settings.write_text("server: {port: 0}\nmqtt: {embedded_port: 0}\n")
    data = folder / "data"
    command = [sys.executable, "-m", "fleet", "run", "--config", str(settings), "--data-dir", str(data)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + START_SECONDS
        while not (data / "endpoints.json").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        url = json.loads((data / "endpoints.json").read_text())["manager"]
        yield url, (data / "admin-token").read_text().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def asks(running: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    url, token = running
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("FLOTILLA_URL", url)
    monkeypatch.setenv("FLOTILLA_TOKEN", token)
    monkeypatch.setenv("FLOTILLA_KEYS", str(tmp_path / "keys"))

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli, [*words, "--json"], prog_name="flotilla")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


def enroll(url: str, claim: str, name: str, state_dir: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "agent",
        "enroll",
        url,
        "--token",
        claim,
        "--id",
        name,
        "--state-dir",
        str(state_dir),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env={**os.environ, "FLOTILLA_TOKEN": ""})


def test_a_day_with_devices(asks, running, tmp_path):
    url, token = running
    assert asks("login", url, "--token", token)["role"] == "admin"
    assert {finding["state"] for finding in asks("doctor")["findings"]} <= {"pass", "warn"}
    asks("init")

    claim = asks("device", "invite", "--uses", "2", "--label", "line=4", "--site", "gate", "--wait-for-accept")["token"]
    for name in ("cam-1", "cam-2"):
        enroll(url, claim, name, tmp_path / name)
    assert [one["lifecycle"] for one in asks("device", "list")["items"]] == ["pending", "pending"]
    assert asks("device", "accept", "cam-1")["lifecycle"] == "active"
    asks("device", "reject", "cam-2", "--yes")
    (one,) = asks("device", "list", "--filter", "label.line:4")["items"]
    assert (one["id"], one["site"], one["labels"]) == ("cam-1", "gate", {"line": "4"})
    assert asks("device", "label", "cam-1", "line-", "lens=wide")["labels"] == {"lens": "wide"}
    assert asks("device", "metrics", "cam-1")["items"] == []
    assert asks("device", "rollback", "cam-1", "--plan", code=Exit.CONFLICT)["code"] == "E_NO_OTHER_SLOT"
    assert asks("status")["devices"] == {"total": 1, "never seen": 1}
    assert asks("device", "revoke", "cam-1", "--yes")["lifecycle"] == "revoked"
    assert asks("device", "show", "nobody", code=Exit.NOT_FOUND)["code"] == "E_NOT_FOUND"


def test_a_device_that_is_uninstalled_is_out_by_its_own_word_and_by_nobody_elses(running, asks, tmp_path):
    url, _ = running
    if httpx2.get(f"{url}/readyz").json()["trust"] != "initialised":
        asks("init")
    claim = asks("device", "invite", "--uses", "2")["token"]
    for name in ("cam-7", "cam-8"):
        enroll(url, claim, name, tmp_path / name)
    body = Goodbye(device="cam-8", at=datetime.now(UTC)).to_bytes()
    forged = seal.sealed(body, topic=TOPIC, sign=identity.keys(tmp_path / "cam-7").signature)
    assert httpx2.post(f"{url}/api/v1/leave", content=forged).json()["code"] == "E_SEAL"
    assert httpx2.post(f"{url}/api/v1/leave", content=body).json()["code"] == "E_SEAL"
    (tmp_path / "cam-7" / "models").mkdir()
    done = CliRunner().invoke(agent, ["uninstall", "--state-dir", str(tmp_path / "cam-7"), "--yes", "--json"])
    assert json.loads(done.stdout)["manager"]["told"] is True
    assert not (tmp_path / "cam-7").exists()
    assert asks("device", "show", "cam-7")["lifecycle"] == "revoked"
    assert asks("device", "show", "cam-8")["lifecycle"] == "active"
    assert asks("audit", "list", "--limit", "1")["items"][0]["action"] == "device.leave"


def test_tokens_and_what_they_may_do(asks):
    made = asks("token", "create", "night-shift", "--role", "viewer", "--expires", "12h")
    refused = asks("device", "invite", "--token", made["token"], code=Exit.NOT_ALLOWED)
    assert "operator" in refused["hint"]
    asks("token", "revoke", made["id"], "--yes")
    assert asks("status", "--token", made["token"], code=Exit.NOT_ALLOWED)["code"] == "E_UNAUTHENTICATED"
    (row,) = (one for one in asks("token", "list")["items"] if one["id"] == made["id"])
    assert row["revoked_at"]


def test_people_sign_in_change_their_password_and_are_shut_out(asks, running, tmp_path, monkeypatch):
    url, _ = running
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("seven grey herons wade\n")
    second.write_text("nine brown otters swim\nseven grey herons wade\n")
    short = tmp_path / "short.txt"
    short.write_text("short\n")
    assert asks("user", "create", "ann", "--password-file", str(short), code=Exit.USAGE)["code"] == "E_PASSWORD"
    assert asks("user", "create", "ann", code=Exit.USAGE)["code"] == "E_NO_PASSWORD"  # nobody to ask
    made = asks("user", "create", "ann", "--role", "operator", "--password-file", str(first), "--expires", "30d")
    assert made["role"] == "operator"
    assert asks("user", "passwd", code=Exit.USAGE)["code"] == "E_USAGE"  # the token of the tests has none

    wrong = asks("login", url, "--user", "ann", "--password-file", str(short), code=Exit.NOT_ALLOWED)
    assert wrong["code"] == "E_SIGN_IN"
    assert asks("login", url, "--expires", "8h", code=Exit.USAGE)["code"] == "E_USAGE"
    admin = os.environ["FLOTILLA_TOKEN"]
    monkeypatch.delenv("FLOTILLA_TOKEN")
    signed_in = asks("login", url, "--user", "ann", "--password-file", str(first), "--expires", "8h")
    assert (signed_in["name"], signed_in["role"]) == ("ann", "operator")
    assert asks("user", "list", code=Exit.NOT_ALLOWED)["code"] == "E_FORBIDDEN"
    asks("device", "invite")
    assert asks("user", "passwd", "--password-file", str(second))["name"] == "ann"
    asks("device", "invite")  # signed in again by itself
    assert asks("logout")["token_ended"] is True
    assert asks("status", code=Exit.NOT_ALLOWED)["code"] == "E_UNAUTHENTICATED"

    monkeypatch.setenv("FLOTILLA_TOKEN", admin)
    assert asks("user", "set", "ann", "--role", "approver")["role"] == "approver"
    assert asks("user", "show", "ann")["signed_in"] == []
    assert asks("user", "passwd", "ann", "--password-file", str(first))["name"] == "ann"
    assert asks("user", "revoke", "ann", code=Exit.USAGE)["code"] == "E_CONFIRM"
    assert asks("user", "revoke", "ann", "--yes")["state"] == "revoked"
    assert asks("user", "revoke", "nobody", "--yes", code=Exit.NOT_FOUND)["code"] == "E_NOT_FOUND"
    (row,) = asks("user", "list")["items"]
    assert (row["name"], row["state"]) == ("ann", "revoked")
    said = {(one["actor"], one["action"]) for one in asks("audit", "list", "--limit", "20")["items"]}
    assert {("ann", "invite.create"), ("ann", "user.password"), ("ann", "user.sign-out")} <= said


def test_the_audit_shows_each_write_and_its_export_verifies(asks, tmp_path):
    asks("token", "create", "auditor", "--role", "viewer")
    assert asks("audit", "list", "--limit", "1")["items"][0]["action"] == "token.create"
    export = CliRunner().invoke(cli, ["audit", "export"]).stdout
    kept = tmp_path / "audit.jsonl"
    kept.write_text(export)
    asks("token", "create", "later", "--role", "viewer")
    assert asks("audit", "verify", "--against", str(kept))["intact"] is True
    kept.write_text(export.replace("token.create", "token.delete"))
    assert asks("audit", "verify", "--against", str(kept), code=Exit.FAILED)["intact"] is False
