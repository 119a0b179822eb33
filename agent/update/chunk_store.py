"""Content-addressed files: sealed chunks on their way into a slot.

    <state_dir>/chunks/ab/abcdef...

I/O: disk.
"""

from collections.abc import Collection, Iterator
from io import FileIO
from pathlib import Path

from shared import chunking, durable
from shared.manifest import Chunk


class ChunkStore:
    """Nothing in here is trusted: whoever reads a chunk checks it."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "chunks"
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

    def _files(self) -> Iterator[Path]:
        return (path for path in self._folder.glob("*/*") if path.is_file())

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name
