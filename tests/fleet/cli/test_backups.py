"""`flotilla backup` beside a data folder: what is said, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.__main__ import main as fleet
from fleet.backups import sealing
from fleet.cli.__main__ import cli
from fleet.cli.errors import Exit
from tests.fleet.backups.conftest import LOCK, PASSPHRASE


@pytest.fixture
def asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sealing, "new_lock", lambda _: LOCK)  # as a passphrase is stretched, but at once
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")

    def run(*words: str | Path, code: int = 0) -> Any:
        given = ["backup", *map(str, words), "--passphrase-file", str(tmp_path / "passphrase"), "--json"]
        done = CliRunner().invoke(cli, given, prog_name="flotilla")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


def test_a_manager_is_backed_up_checked_planned_and_restored_and_nothing_is_overwritten(
    asks: Any, tmp_path: Path
) -> None:
    data, file = tmp_path / "fleet", tmp_path / "fleet.backup"
    assert CliRunner().invoke(fleet, ["init", "--data-dir", str(data)]).exit_code == 0
    made = asks("create", file, "--data-dir", data)
    assert file.stat().st_size == made["bytes"]
    assert file.stat().st_mode & 0o077 == 0
    assert asks("create", file, "--data-dir", data, code=Exit.USAGE)["code"] == "E_FILE"
    assert asks("verify", file)["whole"] is True
    plan = asks("restore", file, "--data-dir", data, "--plan")
    assert plan["dry_run"]
    assert "fleet.sqlite" in plan["occupied"]
    assert asks("restore", file, "--data-dir", data, "--yes", code=Exit.CONFLICT)["code"] == "E_NOT_EMPTY"
    assert asks("restore", file, "--data-dir", tmp_path / "new", code=Exit.USAGE)["code"] == "E_CONFIRM"
    assert asks("restore", file, "--data-dir", tmp_path / "new", "--yes")["rollouts_stopped"] == []
    assert (tmp_path / "new" / "keys" / "pepper").read_bytes() == (data / "keys" / "pepper").read_bytes()
    assert (tmp_path / "new" / "fleet.yaml").read_bytes() == (data / "fleet.yaml").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".new")) == []


def test_a_backup_that_cannot_be_made_leaves_no_file(asks: Any, tmp_path: Path) -> None:
    assert asks("create", tmp_path / "x", "--data-dir", tmp_path / "nothing", code=Exit.USAGE)["code"] == "E_FILE"
    assert asks("create", tmp_path / "x", "--url", "http://127.0.0.1:9", code=Exit.UNREACHABLE)["code"] == (
        "E_UNREACHABLE"
    )
    assert not list(tmp_path.glob("*x*"))
    (tmp_path / "other").write_text("not a backup at all")
    assert asks("verify", tmp_path / "other", code=Exit.FAILED)["code"] == "E_BACKUP_DAMAGED"
