"""Content-addressed files: sealed chunks on their way into a slot.

    <state_dir>/chunks/ab/abcdef...

A device that shares with others of its site keeps those of its newest release for a while (`keep_seconds`).

I/O: disk, clock.
"""

import re
import shutil
import time
from collections.abc import Collection, Iterator
from io import FileIO
from pathlib import Path

from shared import chunking, durable
from shared.identifiers import DIGEST_PATTERN
from shared.manifest import Chunk


class ChunkStore:
    """Nothing in here is trusted: whoever reads a chunk checks it."""

    def __init__(self, state_dir: Path, *, keep_seconds: float = 0.0, keep_free_bytes: int = 0) -> None:
        self._folder = state_dir / "chunks"
        self._keep_seconds, self._keep_free_bytes = keep_seconds, keep_free_bytes
        durable.make_folder(self._folder)

    def has(self, chunk: Chunk) -> bool:
        """True when a file of its name and size is here."""
        try:
            return self._path(chunk.id).stat().st_size == chunk.size_bytes
        except FileNotFoundError:
            return False

    def put(self, name: str, data: bytes) -> None:
        """Keep a chunk, durably. The caller has checked it."""
        path = self._path(name)
        durable.make_folder(path.parent)
        durable.replace_file(path, data)

    def get(self, name: str) -> bytes:
        """The chunk, checked again; a damaged one is dropped from the store.

        Raises:
            DamagedChunkError: missing, or other bytes than named.
        """
        with self._opened(name) as file:
            data = file.read()
        self._check(data, name)
        return data

    def get_into(self, buffer: bytearray, chunk: Chunk) -> memoryview:
        """As `get`, in the memory of `buffer`, which has room for it.

        Raises:
            DamagedChunkError: missing, or other bytes than named.
        """
        with self._opened(chunk.id) as file:
            data = memoryview(buffer)[: file.readinto(memoryview(buffer)[: chunk.size_bytes])]
        self._check(data, chunk.id)
        return data

    def _opened(self, name: str) -> FileIO:
        try:
            return FileIO(self._path(name))
        except FileNotFoundError:
            raise chunking.DamagedChunkError(f"chunk {name[:12]} is not in the store") from None

    def _check(self, data: bytes | memoryview, name: str) -> None:
        try:
            chunking.check(data, name)
        except chunking.DamagedChunkError:
            self._path(name).unlink(missing_ok=True)
            raise

    def prune(self, keep: Collection[str] = ()) -> None:
        """Remove every chunk that is not in `keep`, and what a power cut left half-written."""
        for path in self._files():
            if path.name not in keep:
                path.unlink()

    def let_go(self) -> None:
        """No update needs any chunk now: remove all, but those that others may still want while there is room."""
        keep: set[str] = set()
        if self._keep_seconds > 0 and shutil.disk_usage(self._folder).free >= self._keep_free_bytes:
            oldest = time.time() - self._keep_seconds
            keep = {path.name for path in self._files() if path.stat().st_mtime >= oldest}
        self.prune(keep)

    def names(self) -> tuple[str, ...]:
        """Chunks that are here."""
        return tuple(path.name for path in self._files() if re.fullmatch(DIGEST_PATTERN, path.name))

    def size_bytes(self, *, but: Collection[str]) -> int:
        """Of all that is here, without the chunks in `but`: what fetching those frees."""
        return sum(path.stat().st_size for path in self._files() if path.name not in but)

    def _files(self) -> Iterator[Path]:
        return (path for path in self._folder.glob("*/*") if path.is_file())

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name
