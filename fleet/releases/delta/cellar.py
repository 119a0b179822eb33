"""Model files that were published on this machine, kept beside the keys so that the next delta can be made from them.

    <keys>/published/<model>/<counter>-<digest>.onnx       the newest few of each model

The manager holds them only encrypted, and people who publish hold no key that opens what they published.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.durable import make_folder, replace_file
from shared.identifiers import checked, sha256

if TYPE_CHECKING:
    from pathlib import Path

KEPT: Final = 4


class Cellar:
    """The files below the key folder `keys`."""

    def __init__(self, keys: Path) -> None:
        self._folder = keys / "published"

    def models(self) -> list[str]:
        """Every model that was published from this folder."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir()) if self._folder.is_dir() else []

    def files(self, model: str) -> list[bytes]:
        """The kept files of a model, newest first; a damaged one is left out."""
        found = []
        for path in self._paths(model):
            data = path.read_bytes()
            if path.stem.endswith(sha256(data)):
                found.append(data)
        return found

    def put(self, model: str, counter: int, data: bytes) -> None:
        """Keep the file of the release number `counter`, and no more than the newest few."""
        folder = self._folder / checked("model name", model)
        make_folder(self._folder)
        make_folder(folder)
        replace_file(folder / f"{counter:08d}-{sha256(data)}.onnx", data)
        for path in self._paths(model)[KEPT:]:
            path.unlink(missing_ok=True)

    def _paths(self, model: str) -> list[Path]:
        return sorted((self._folder / checked("model name", model)).glob("*.onnx"), reverse=True)
