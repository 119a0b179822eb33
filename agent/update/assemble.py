"""Stored chunks -> the files of the idle slot: opened, checked, scanned, durable, read-only.

Running it again starts from an empty slot.

I/O: disk.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.update import slot_disk
from agent.update.chunk_store import ChunkStore
from agent.update.lifecycle import SlotName
from agent.update.peek import Peek
from agent.update.reasons import ManifestError
from agent.update.slot_disk import SlotDisk
from agent.update.unpack import Effort, unpack
from shared import chunking, durable, onnx_scan
from shared.delta.errors import DeltaError
from shared.delta.offer import Description
from shared.delta.offer import artifact as artifact_name
from shared.delta.rebuild import rebuild
from shared.manifest import Artifact, Manifest

READ_ONLY: Final = 0o400


@dataclass(frozen=True, slots=True)
class Base:
    """The model file that a delta starts from, and what the delta is."""

    path: Path
    delta: Description


def assemble(
    manifest: Manifest,
    data: bytes,
    *,
    content_key: bytes,
    store: ChunkStore,
    disk: SlotDisk,
    slot: SlotName,
    base: Base | None = None,
    effort: Effort,
) -> None:
    """Write every file of the release `manifest` (as signed: `data`) into the empty slot; the model file from the
    chunks of its delta where a `base` is given. Nothing is read again but what the scan looks at.

    Raises:
        DeltaError: the delta does not lead to the model file.
        DamagedChunkError: a chunk in the store is missing or not the one named (it is dropped there).
        WrongKeyError: the content key does not open the chunks.
        ManifestError: the plain file is not the one that the manifest names.
        OnnxError: the model holds what no model should.
    """
    disk.clear(manifest.model, slot)
    folder = disk.folder(manifest.model, slot)
    durable.make_folder(folder)
    for name, artifact in manifest.artifacts.items():
        path = disk.file(manifest.model, slot, name)
        with _new_file(path) as file:
            if name == "model" and base is not None:
                digest = _written(file, _rebuilt(base, content_key, store))
            else:
                digest = unpack(file.fileno(), name, artifact, content_key=content_key, store=store, effort=effort)
            os.fsync(file.fileno())
        if digest != artifact.digest:
            wrong = DeltaError if name == "model" and base is not None else ManifestError
            raise wrong(f"{path.name} is not the file that the manifest names")
    durable.replace_file(folder / slot_disk.MANIFEST_FILE, data, mode=READ_ONLY)
    _scan(manifest, disk, slot)
    durable.sync_folder(folder)


def restored(manifest: Manifest, digest: str, *, disk: SlotDisk, slot: SlotName) -> bool:
    """True when the release was kept beside the slots and is in `slot` now, whole. Checked as if it came anew.

    Raises:
        ManifestError, OnnxError: as `assemble`.
    """
    if not disk.take_out(manifest.model, slot, digest):
        return False
    _scan(manifest, disk, slot)
    return True


def _scan(manifest: Manifest, disk: SlotDisk, slot: SlotName) -> None:
    with disk.file(manifest.model, slot, "model").open("rb") as file:
        facts = onnx_scan.scan(Peek(file.fileno()))
    if (facts.ir_version, facts.opset) != (manifest.runtime.ir_version, manifest.runtime.opset):
        raise ManifestError("the model is of another ONNX form than the manifest says")


def _rebuilt(base: Base, content_key: bytes, store: ChunkStore) -> Iterator[bytes | memoryview]:
    """The model file out of an older one, of which only the parts in use are in memory."""
    delta = base.delta
    pieces = _pieces(artifact_name(delta.base), delta.stream, content_key, store)
    try:
        with base.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as old:
            if len(old) != delta.base_bytes:
                raise DeltaError(f"the delta starts from {delta.base_bytes} bytes; {base.path.name} has {len(old)}")
            with memoryview(old) as view:
                yield from (bytes(piece) for piece in rebuild(view, pieces, result_bytes=delta.result_bytes))
    except (OSError, BufferError) as error:
        raise DeltaError(f"{base.path.name} cannot be read: {error}") from None


def _pieces(name: str, artifact: Artifact, content_key: bytes, store: ChunkStore) -> Iterator[bytes]:
    """The plain bytes of one sealed thing, chunk by chunk."""
    key = chunking.artifact_key(content_key, name)
    count = len(artifact.chunks)
    for index, chunk in enumerate(artifact.chunks):
        yield chunking.unseal(
            store.get(chunk.id), key=key, artifact=name, index=index, count=count, plain_bytes=chunk.plain_bytes
        )


def _new_file(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READ_ONLY), "wb")


def _written(file: BinaryIO, pieces: Iterator[bytes | memoryview]) -> str:
    """Their SHA-256."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    file.flush()
    return digest.hexdigest()
