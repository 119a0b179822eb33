"""A file read by windows is the file, and the scan finds the same in it."""

from pathlib import Path

import pytest

from agent.update import peek
from agent.update.peek import Peek
from shared import onnx_scan


@pytest.mark.parametrize("window", [1, 7, 64 * 1024])
def test_every_byte_and_every_slice_is_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(peek, "_WINDOW_BYTES", window)
    data = bytes(range(256)) * 3
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        found = Peek(file.fileno())
        assert len(found) == len(data)
        assert bytes(found[place] for place in range(len(data))) == data
        for start, end in ((0, 768), (5, 5), (9, 3), (300, 310), (760, 9000), (2, 767), (768, 769)):
            assert found[start:end] == data[start:end]
        with pytest.raises(IndexError):
            found[len(data)]


@pytest.mark.parametrize("window", [16, 64 * 1024])
def test_the_scan_of_a_file_finds_what_the_scan_of_its_bytes_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: list[bytes], window: int
) -> None:
    monkeypatch.setattr(peek, "_WINDOW_BYTES", window)
    (tmp_path / "model").write_bytes(models[0])
    with (tmp_path / "model").open("rb") as file:
        assert onnx_scan.scan(Peek(file.fileno())) == onnx_scan.scan(models[0])
