"""Uninstalling: what is ours goes, what is not stays and is told, and nothing behind a link is touched."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import identity
from agent.__main__ import main
from agent.belongings import STATE, Places, going, is_ours
from agent.errors import AlreadyRunningError
from agent.identity import BrokerAccount, Enrolment
from agent.state_folder import locked
from agent.uninstall import Uninstall

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "systemd" / "flotilla-agent.service").read_text()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A machine as docs/installing.md makes it, without a systemd that runs."""
    found = Places(tmp_path / "machine")
    for path, text in (
        (found.unit, UNIT),
        (found.shared[0], "u flotilla-agent"),
        (found.shared[1], "d /etc/flotilla"),
        (found.settings, "log_level: info"),
        (found.program, "#!/bin/sh"),
        (found.runtime / "inference.sock", ""),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of an agent whose manager is away."""
    folder = tmp_path / "state"
    identity.keys(folder)
    account = BrokerAccount(url="mqtt://127.0.0.1:1")
    enrolled = Enrolment(device_id="cam-1", lifecycle="active", api_key="k", mqtt=account, root="{}",
                         manager_url="http://127.0.0.1:1")  # fmt: skip
    identity.save(folder, enrolled)
    for name in ("update.sqlite", "outbox.sqlite", "endpoints.json"):
        (folder / name).write_text("x")
    for name in ("models/digits/a", "chunks/ab"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.onnx").write_text("weights")
    return folder


def run(state: Path, places: Places, *, keep_models: bool = False) -> dict[str, Any]:
    return Uninstall(state, keep_models, places).run()


def stayed(document: dict[str, Any]) -> dict[str, str]:
    return {Path(one["what"]).name: one["why"] for one in document["stayed"]}


def test_everything_that_the_guide_puts_there_goes_and_the_rest_is_told(state: Path, places: Places) -> None:
    done = run(state, places)
    assert not state.exists()
    left = sorted(str(path.relative_to(places.root)) for path in places.root.rglob("*") if path.is_file())
    assert left == ["etc/flotilla/agent.yaml", "usr/bin/flotilla-agent"]
    assert stayed(done)["agent.yaml"] == "your settings"
    assert done["complete"]
    assert done["manager"]["told"] is False
    assert "no manager answers" in done["manager"]["detail"]
    revoke = [one["type"] for one in done["stayed"] if "manager's list" in one["what"]]
    assert revoke[0].startswith("flotilla device revoke cam-1")


def test_a_second_time_there_is_nothing_left_to_do(state: Path, places: Places) -> None:
    run(state, places)
    done = run(state, places)
    assert done["removed"] == []
    assert done["manager"] == {"told": None, "detail": "there is no state folder"}


def test_links_are_removed_and_what_they_lead_to_stays(state: Path, places: Places, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (state / "models" / "digits" / "out").symlink_to(precious)
    (state / "engines").symlink_to(precious)
    (state / "peers.json").symlink_to(precious / "file")
    places.runtime.rename(tmp_path / "elsewhere")
    places.runtime.symlink_to(tmp_path / "elsewhere")
    run(state, places)
    assert not state.exists()
    assert (precious / "file").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "inference.sock").exists()
    assert not os.path.lexists(places.runtime)


def test_a_state_folder_that_is_itself_a_link_is_emptied_and_the_link_stays(
    state: Path, places: Places, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(state)
    done = run(link, places)
    assert list(state.iterdir()) == []
    assert stayed(done)["link"] == "it is a link that you made"


def test_files_of_others_and_models_that_are_to_be_kept_stay(state: Path, places: Places) -> None:
    (state / "notes.txt").write_text("mine")
    done = run(state, places, keep_models=True)
    assert sorted(path.name for path in state.iterdir()) == ["models", "notes.txt"]
    assert (state / "models" / "digits" / "a" / "model.onnx").read_text() == "weights"
    assert stayed(done)["models"] == "--keep-models was given"
    assert stayed(done)["notes.txt"] == "the agent did not make it"


def test_a_unit_of_that_name_which_starts_something_else_stays(state: Path, places: Places) -> None:
    places.unit.write_text("[Service]\nExecStart=/usr/bin/other\n")
    done = run(state, places)
    assert places.unit.exists()
    assert stayed(done)["flotilla-agent.service"] == "it starts something else than flotilla-agent"


def test_what_the_manager_on_the_same_machine_uses_stays(state: Path, places: Places) -> None:
    places.fleet_units[0].write_text("")
    done = run(state, places)
    assert all(path.exists() for path in places.shared)
    assert [one["why"] for one in done["stayed"]].count("the manager on this machine uses it") == 2


def test_nothing_is_taken_from_under_an_agent_that_runs(state: Path, places: Places) -> None:
    with locked(state), pytest.raises(AlreadyRunningError):
        run(state, places)
    assert (state / "identity" / "keys.json").exists()
    assert places.unit.exists()


AS_NOBODY = """
import encodings.idna, json, os, sys
from pathlib import Path
from agent import leaving, uninstall
from agent.belongings import Places
os.setgid(65534)
os.setuid(65534)
print(json.dumps(uninstall.Uninstall(Path(sys.argv[1]), False, Places(Path(sys.argv[2]))).run()))
"""


def as_nobody(state: Path, places: Places) -> dict[str, Any]:
    command = [sys.executable, "-c", AS_NOBODY, str(state), str(places.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["complete"]
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_without_root_it_clears_what_it_may_and_says_what_to_type(state: Path, places: Places) -> None:
    with tempfile.TemporaryDirectory() as name:
        open_to_all = Path(name)
        open_to_all.chmod(0o755)
        shutil.move(state, open_to_all / "state")
        shutil.move(places.root, open_to_all / "m")
        others = as_nobody(open_to_all / "state", Places(open_to_all / "m"))
        assert (open_to_all / "state" / "identity" / "keys.json").exists()
        types = {one["what"]: one["type"] for one in others["stayed"]}
        assert types[str(open_to_all / "state")] == "sudo flotilla-agent uninstall"
        for path in (open_to_all / "state", *(open_to_all / "state").rglob("*")):
            os.chown(path, 65534, 65534)
        own = as_nobody(open_to_all / "state", Places(open_to_all / "m"))
        assert list((open_to_all / "state").rglob("*")) == []
        unit = Places(open_to_all / "m").unit
        assert unit.exists()
        assert {one["what"]: one["type"] for one in own["stayed"]}[str(unit)] == f"sudo rm -r {unit}"


def test_it_does_nothing_without_a_yes(state: Path) -> None:
    done = CliRunner().invoke(main, ["uninstall", "--state-dir", str(state)])
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert (state / "identity").exists()


def test_who_the_device_is_goes_last_so_that_it_can_be_told_again() -> None:
    goes, stays = going(["identity", "x", *STATE], keep_models=False)
    assert goes[-1] == "identity"
    assert [one.what for one in stays] == ["x"]


@pytest.mark.parametrize(
    ("unit", "ours"),
    [
        (UNIT, True),
        ("ExecStart=/opt/venv/bin/python -m agent run --config x", True),
        ("ExecStart=/usr/bin/flotilla-agent-exporter", False),
        ("Description=flotilla-agent run", False),
        ("", False),
    ],
)
def test_a_unit_is_ours_by_what_it_starts(unit: str, ours: bool) -> None:
    assert is_ours(unit) is ours
