import os
from pathlib import Path

import pytest

from shared import durable


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    durable.replace_file(path, b"old")
    durable.replace_file(path, b"newer content")
    assert path.read_bytes() == b"newer content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["record"]


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    durable.replace_file(tmp_path / "record", b"x")
    assert steps == ["sync file", "rename", "sync folder"]


def test_a_crash_before_the_rename_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record"
    durable.replace_file(path, b"old")

    def crash(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            durable.replace_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    durable.replace_file(path, b"n")
    assert path.read_bytes() == b"n"


def test_folders_are_made_with_their_parents_and_twice_is_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    durable.make_folder(folder)
    durable.make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        durable.make_folder(tmp_path / "a" / "b")


def test_writing_that_begins_early_changes_nothing_but_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(bytes(100_000))
        file.flush()
        durable.begin_writing(file.fileno(), 0, 1 << 20)
        monkeypatch.setattr(durable, "_LIBC", None)  # a system that does not offer it
        durable.begin_writing(file.fileno(), 0, 1 << 20)
        assert os.pread(file.fileno(), 200_000, 0) == bytes(100_000)
