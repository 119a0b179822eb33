"""Sealed chunks in a folder, named by digest: written once, never changed.

    chunks/ab/abcdef...        servable by any web server as it stands

I/O: disk, chance.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.chunking import CHUNK_BYTES, OVERHEAD_BYTES, check
from shared.durable import make_folder, sync_folder
from shared.errors import BadInputError
from shared.identifiers import checked

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CHUNK_BYTES: Final = CHUNK_BYTES + OVERHEAD_BYTES


class Depot:
    """The chunks below `folder`. Safe for any number of writers: equal names mean equal content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "chunks"

    def path(self, name: str) -> Path:
        """Where the chunk called `name` is or would be.

        Raises:
            BadInputError: not a digest; so no name can lead outside of the folder.
        """
        digest = checked("digest", name)
        return self._folder / digest[:2] / digest

    def has(self, name: str) -> bool:
        """True when the chunk is here."""
        return self.path(name).is_file()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are not here, in the same order."""
        return [name for name in names if not self.has(name)]

    def get(self, name: str) -> bytes | None:
        """The bytes of the chunk, or None."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> bool:
        """Delete the chunk called `name`; False if it was not here. A deletion that a power cut undoes is repeated."""
        path = self.path(name)
        found = path.is_file()
        path.unlink(missing_ok=True)
        return found

    def put(self, name: str, chunk: bytes) -> bool:
        """Keep `chunk` durably; False if it was here before.

        Raises:
            BadInputError: too long for a chunk, or no digest.
            DamagedChunkError: `name` is not its digest.
        """
        if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
            raise BadInputError(f"a chunk of {len(chunk)} bytes; 1 to {MAX_CHUNK_BYTES} are allowed")
        path = self.path(name)
        check(chunk, name)
        if path.is_file():
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
