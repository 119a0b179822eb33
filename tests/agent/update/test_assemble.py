"""Chunks become read-only files that are exactly the release's, or nothing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.update.assemble import assemble
from agent.update.chunk_store import ChunkStore
from agent.update.reasons import DamagedSlotError, ManifestError
from agent.update.slot_disk import SlotDisk
from agent.update.unpack import Effort
from shared import signing
from shared.chunking import DamagedChunkError, WrongKeyError
from shared.identifiers import sha256
from shared.manifest import Manifest
from shared.onnx_scan import OnnxError
from tests.simulators.release_repository import Release, ReleaseRepository, golden_of


class Bench:
    """A store that holds every chunk of a release, and an empty slot."""

    def __init__(self, folder: Path, release: Release) -> None:
        self.release = release
        self.store, self.disk = ChunkStore(folder), SlotDisk(folder)
        for name, data in release.chunks.items():
            self.store.put(name, data)

    def assemble(self, *, manifest: Manifest | None = None, content_key: bytes | None = None) -> None:
        assemble(
            manifest or self.release.manifest,
            self.release.data,
            content_key=content_key or self.release.content_key,
            store=self.store,
            disk=self.disk,
            slot="b",
            effort=Effort(threads=2),
        )


@pytest.fixture
def bench(tmp_path: Path, models: list[bytes]) -> Bench:
    return Bench(tmp_path, ReleaseRepository().publish("digits", "1.0.0", models[0]))


def test_the_files_are_the_releases_and_nobody_may_write_them(bench: Bench, models: list[bytes]) -> None:
    bench.assemble()
    bench.assemble()  # again, over what is there
    assert bench.disk.file("digits", "b", "model").read_bytes() == models[0]
    assert bench.disk.verified("digits", "b", bench.release.digest) == bench.release.manifest
    files = list(bench.disk.folder("digits", "b").iterdir())
    assert {file.name for file in files} == {"model.onnx", "golden.npz", "baseline.json", "manifest.json"}
    assert {os.stat(file).st_mode & 0o777 for file in files} == {0o400}
    bench.disk.clear("digits", "b")
    bench.disk.clear("digits", "b")
    assert not bench.disk.folder("digits", "b").exists()


def test_a_damaged_chunk_is_named_and_dropped(bench: Bench) -> None:
    chunk = bench.release.manifest.artifacts["model"].chunks[1]
    bench.store.put(chunk.id, b"x" * chunk.size_bytes)
    with pytest.raises(DamagedChunkError):
        bench.assemble()
    assert not bench.store.has(chunk)


def test_another_content_key_opens_nothing(bench: Bench) -> None:
    with pytest.raises(WrongKeyError):
        bench.assemble(content_key=signing.new_content_key())


def test_chunks_in_another_order_do_not_open(bench: Bench) -> None:
    model = bench.release.manifest.artifacts["model"]
    swapped = model.model_copy(update={"chunks": (model.chunks[1], model.chunks[0], *model.chunks[2:])})
    artifacts = {**bench.release.manifest.artifacts, "model": swapped}
    with pytest.raises(WrongKeyError):
        bench.assemble(manifest=bench.release.manifest.model_copy(update={"artifacts": artifacts}))


def test_a_file_of_another_digest_is_refused(bench: Bench) -> None:
    model = bench.release.manifest.artifacts["model"].model_copy(update={"digest": sha256(b"other")})
    artifacts = {**bench.release.manifest.artifacts, "model": model}
    with pytest.raises(ManifestError):
        bench.assemble(manifest=bench.release.manifest.model_copy(update={"artifacts": artifacts}))


def test_bytes_that_are_no_model_are_refused_before_any_runtime_sees_them(tmp_path: Path, models: list[bytes]) -> None:
    junk = ReleaseRepository().publish("digits", "1.0.0", b"\x08\x0ajunk" * 50, golden=golden_of(models[0]))
    with pytest.raises(OnnxError):
        Bench(tmp_path, junk).assemble()


def test_a_manifest_that_lies_about_the_model_is_refused(bench: Bench) -> None:
    runtime = bench.release.manifest.runtime.model_copy(update={"ir_version": 3})
    with pytest.raises(ManifestError):
        bench.assemble(manifest=bench.release.manifest.model_copy(update={"runtime": runtime}))


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "baseline.json", "manifest.json"])
def test_a_changed_or_missing_file_in_a_slot_is_noticed(bench: Bench, name: str) -> None:
    bench.assemble()
    path = bench.disk.folder("digits", "b") / name
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedSlotError):
        bench.disk.verified("digits", "b", bench.release.digest)
    path.unlink()
    with pytest.raises(DamagedSlotError):
        bench.disk.verified("digits", "b", bench.release.digest)


def test_a_release_without_chunks_in_the_store_is_not_assembled(tmp_path: Path, bench: Bench) -> None:
    empty = Bench(tmp_path / "other", replace(bench.release, chunks={}))
    with pytest.raises(DamagedChunkError):
        empty.assemble()
