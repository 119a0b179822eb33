"""Several threads write one file out of its chunks: the right one, in constant memory, behind everybody else."""

import errno
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.update.assemble import assemble
from agent.update.chunk_store import ChunkStore
from agent.update.slot_disk import SlotDisk
from agent.update.unpack import Effort, unpack
from shared import chunking
from shared.chunking import DamagedChunkError, WrongKeyError
from shared.identifiers import sha256
from shared.manifest import Artifact, Chunk, Manifest
from tests.simulators.release_repository import ReleaseRepository

KEY = bytes(range(32))
_ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Stored:
    """A file of so many chunks of all lengths, some of which compress, in a store."""

    folder: Path
    count: int
    plain: bytes = b""
    chunks: list[Chunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(self.count)  # content, no secret
        self.store = ChunkStore(self.folder)
        for index in range(self.count):
            size = chance.randint(1, 300_000)
            piece = chance.randbytes(size) if index % 3 else b"same" * (size // 4 + 1)
            sealed = chunking.seal(
                piece, key=chunking.artifact_key(KEY, "model"), artifact="model", index=index, count=self.count
            )
            self.chunks.append(Chunk(id=sha256(sealed), size_bytes=len(sealed), plain_bytes=len(piece)))
            self.store.put(self.chunks[-1].id, sealed)
            self.plain += piece

    @property
    def path(self) -> Path:
        return self.folder / "file"

    def unpack(self, *, threads: int = 2, nice: int = 0, key: bytes = KEY) -> str:
        artifact = Artifact(digest=sha256(self.plain), size_bytes=len(self.plain), chunks=tuple(self.chunks))
        effort = Effort(threads=threads, nice=nice)
        with self.path.open("wb") as file:
            return unpack(file.fileno(), "model", artifact, content_key=key, store=self.store, effort=effort)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_any_number_of_threads_writes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))  # as many as are asked for
    stored = Stored(tmp_path, count)
    assert stored.unpack(threads=threads) == sha256(stored.plain)
    assert stored.path.read_bytes() == stored.plain


@pytest.mark.parametrize("place", [0, 17, 29])
def test_a_damaged_chunk_ends_all_threads_and_is_dropped(tmp_path: Path, place: int) -> None:
    stored = Stored(tmp_path, 30)
    bad = stored.chunks[place]
    stored.store.put(bad.id, b"x" * bad.size_bytes)
    with pytest.raises(DamagedChunkError, match=bad.id[:12]):
        stored.unpack()
    assert not stored.store.has(bad)


def test_a_wrong_key_and_chunks_in_another_order_open_nothing(tmp_path: Path) -> None:
    stored = Stored(tmp_path, 5)
    with pytest.raises(WrongKeyError):
        stored.unpack(key=bytes(32))
    stored.chunks[1], stored.chunks[2] = stored.chunks[2], stored.chunks[1]
    with pytest.raises(WrongKeyError):
        stored.unpack()


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    stored = Stored(tmp_path, 5)
    stored.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        stored.unpack()
    assert error.value.errno == errno.ENOSPC


class Watched(ChunkStore):
    """Does something before each chunk is read."""

    def __init__(self, folder: Path, before: Callable[[], None]) -> None:
        super().__init__(folder)
        self._before = before

    def get_into(self, buffer: bytearray, chunk: Chunk) -> memoryview:
        self._before()
        return super().get_into(buffer, chunk)


def test_only_the_threads_that_unpack_stand_back(tmp_path: Path) -> None:
    stored, seen, before = Stored(tmp_path, 6), set[int](), os.getpriority(os.PRIO_PROCESS, 0)
    stored.store = Watched(tmp_path, lambda: seen.add(os.getpriority(os.PRIO_PROCESS, 0)))
    stored.unpack(nice=min(19, before + 7))
    assert seen == {min(19, before + 7)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for count in (40, 120):
        stored = Stored(tmp_path / str(count), count)
        tracemalloc.start()
        try:
            stored.unpack(threads=1)  # of two, chance says how many desks they take
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert len(stored.plain) > 12_000_000
    assert peaks[1] < peaks[0] + 1_000_000  # desks grow to the longest chunk


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from tests.agent.update.test_unpack import Watched, put_in_slot
from shared.manifest import Manifest
folder, at = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def dies():
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
put_in_slot(Manifest.parse((folder / "signed.json").read_bytes()), folder, Watched(folder, dies))
"""


def put_in_slot(manifest: Manifest, folder: Path, store: ChunkStore) -> None:
    assemble(
        manifest, manifest.to_bytes(), content_key=(folder / "key").read_bytes(), store=store, disk=SlotDisk(folder),
        slot="a", effort=Effort(threads=2),
    )  # fmt: skip


def test_killed_between_any_two_chunks_nothing_is_there_to_open_and_the_next_try_ends_well(
    tmp_path: Path, models: list[bytes]
) -> None:
    release = ReleaseRepository().publish("digits", "1.0.0", models[0])
    (tmp_path / "signed.json").write_bytes(release.data)
    (tmp_path / "key").write_bytes(release.content_key)
    store, disk = ChunkStore(tmp_path), SlotDisk(tmp_path)
    for name, data in release.chunks.items():
        store.put(name, data)
    for at in (1, 2, len(release.chunks)):
        command = [sys.executable, "-c", _KILLED_AT, str(tmp_path), str(at)]
        assert subprocess.run(command, cwd=_ROOT).returncode == -9
        assert disk.folder("digits", "a").exists()
        assert disk.found("digits", "a") is None
    put_in_slot(release.manifest, tmp_path, store)
    assert disk.verified("digits", "a", release.digest) == release.manifest
