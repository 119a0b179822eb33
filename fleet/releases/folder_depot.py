"""Sealed chunks in a folder of this machine; a chunk's age is the file's.

I/O: disk, chance.
"""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.releases import depot
from shared.durable import make_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime


class FolderDepot:
    """A `depot.Depot` below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ageing = threading.Lock()  # a chunk is renewed, or removed for its age, not both at once

    def path(self, name: str) -> Path:
        """Where the chunk called `name` is or would be.

        Raises:
            BadInputError: not a digest; so no name can lead outside of the folder.
        """
        return self._folder / depot.place(name)

    def where(self, name: str) -> Path | None:
        """See `depot.Depot`."""
        return self.path(name)

    def missing(self, names: Iterable[str]) -> list[str]:
        """See `depot.Depot`."""
        return [name for name in names if not self._renewed(self.path(name))]

    def get(self, name: str) -> bytes | None:
        """See `depot.Depot`."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str, *, before: datetime | None = None) -> bool:
        """See `depot.Depot`."""
        path = self.path(name)
        with self._ageing, suppress(FileNotFoundError):
            if before is None or path.stat().st_mtime < before.timestamp():
                path.unlink()
                return True
        return False

    def older(self, before: datetime) -> Sequence[str]:
        """See `depot.Depot`. What a crash left half-written is deleted on the way."""
        found = []
        for path in (self._folder / "chunks").glob("*/*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime >= before.timestamp():
                    continue
                if path.name.startswith(".new-"):
                    path.unlink()
                elif depot.NAME.fullmatch(path.name):
                    found.append(path.name)
        return found

    def put(self, name: str, chunk: bytes) -> bool:
        """See `depot.Depot`."""
        depot.examined(name, chunk)
        path = self.path(name)
        if self._renewed(path):
            return False
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return True

    def _renewed(self, path: Path) -> bool:
        """True if the chunk is here; it counts as new from now on."""
        with self._ageing:
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True
