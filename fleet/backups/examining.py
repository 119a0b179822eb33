"""Read a backup from its first byte to its last, and prove it: digests, the seal, keys, signatures, chunks.

I/O: disk.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import zstandard
from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]  # its stubs list no names

from fleet.backups import rows, sealing
from fleet.backups.errors import BackupDamagedError, PassphraseError
from fleet.backups.form import Part, Reader
from fleet.backups.writing import KEYS
from fleet.releases import documents
from fleet.store.releases import RESTORED
from shared.errors import RefusedError
from shared.identifiers import release_path, sha256
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MAX_INDEX_BYTES: Final = 1 << 30
_KEPT: Final = ("metadata", "releases", "rollouts", "schedules")


@dataclass
class Contents:
    """What a backup holds; proven once `examined` gave it."""

    head: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # rows of each table
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in _KEPT})
    chunks: set[str] = field(default_factory=set)  # that are in the file
    names: set[str] = field(default_factory=set)  # that devices may ask for
    missing: set[str] = field(default_factory=set)  # that the depot lacked then

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.head["created"])

    @property
    def with_chunks(self) -> bool:
        return bool(self.head["chunks"])

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "created": self.head["created"],
            "version": self.head["version"],
            "revision": self.head["revision"],
            "rows": dict(sorted(self.counts.items())),
            "chunks": len(self.chunks) if self.with_chunks else None,
            "chunks_named": len(self.names),
            "missing_chunks": len(self.missing),
        }


def examined(path: Path, passphrase: str, *, progress: Callable[[int], None] = lambda _: None) -> Contents:
    """What is in the backup at `path`. Changes nothing.

    Raises:
        BackupNewerError, BackupDamagedError: it is not one that can be restored.
        PassphraseError: the passphrase does not open it.
    """
    found = Contents()
    with path.open("rb") as file:
        reader = Reader(file)
        lock: sealing.Lock | None = None
        for part in reader.parts():
            if not found.head:
                found.head = _head(part)
                lock = sealing.lock_of(found.head, passphrase)
            elif part.kind == "secrets" and lock is not None:
                found.secrets = lock.open(part.payload)
            else:
                _take(found, part)
            progress(len(part.payload))
        if lock is None or not found.secrets:
            raise BackupDamagedError("the backup holds no keys")
        if not reader.sealed_by(lock.key):
            raise PassphraseError(
                "the seal over the backup does not fit: it was changed after it was written",
                remedy="use another copy, and find out who can write to this one",
            )
    _whole(found)
    _signed(found)
    return found


def complete(path: Path, key: bytes) -> Contents:
    """What is in the backup at `path`, which has just been written: every byte arrived as it was sent.

    Raises:
        BackupDamagedError: it did not.
    """
    found = Contents()
    with path.open("rb") as file:
        reader = Reader(file)
        for part in reader.parts():
            if not found.head:
                found.head = _head(part)
            elif part.kind != "secrets":
                _take(found, part)
        if not reader.sealed_by(key):
            raise BackupDamagedError("the backup is not the one that was asked for", remedy="make it again")
    return found


def _head(part: Part) -> Mapping[str, Any]:
    try:
        datetime.fromisoformat(part.header["created"])
        known = [part.header[name] for name in ("version", "revision", "chunks")]
    except (KeyError, ValueError, TypeError):
        known = []
    if part.kind != "head" or not known:
        raise BackupDamagedError("the backup does not begin with its head")
    return part.header


def _take(found: Contents, part: Part) -> None:
    match part.kind:
        case "rows":
            form = rows.Form.read(part.header)
            number = 0
            for row in form.rows(part.payload):
                number += 1
                if form.name in found.kept:
                    found.kept[form.name].append(row)
            if number != part.header.get("rows"):
                raise BackupDamagedError(f"{number} rows of {form.name} where {part.header.get('rows')} are named")
            found.counts[form.name] += number
        case "chunk":
            if part.header.get("name") != part.header["sha256"]:
                raise BackupDamagedError(f"chunk {part.header.get('name')} has other content than its name says")
            found.chunks.add(part.header["sha256"])
        case "index":
            found.names, found.missing = _index(part.payload)
        case _:
            raise BackupDamagedError(f"a part of a kind that there is not: {part.kind[:40]!r}")


def _index(payload: bytes) -> tuple[set[str], set[str]]:
    try:
        said = json.loads(zstandard.ZstdDecompressor().decompress(payload, max_output_size=_MAX_INDEX_BYTES))
        return set(said["names"]), set(said["missing"])
    except (zstandard.ZstdError, ValueError, TypeError, KeyError, RecursionError):
        raise BackupDamagedError("the index of chunks is not readable") from None


def _whole(found: Contents) -> None:
    if lost := [name for name in KEYS if f"keys/{name}" not in found.secrets]:
        raise BackupDamagedError(f"the backup lacks keys: {', '.join(lost)}")
    if found.with_chunks and (gone := found.names - found.missing - found.chunks):
        raise BackupDamagedError(f"{len(gone)} chunks are named and not in the file, such as {min(gone)}")


def _signed(found: Contents) -> None:
    """Every release is vouched for by documents that lead to the newest root, as devices check it."""
    newest: dict[str, tuple[int, bytes]] = {}
    for row in found.kept["metadata"]:
        if row["role"] != RESTORED:
            newest[row["role"]] = max(newest.get(row["role"], (0, b"")), (row["version"], row["data"]))
    try:
        listed = _listed({role: data for role, (_, data) in newest.items()})
        for row in found.kept["releases"]:
            manifest = Manifest.parse(row["manifest"], row["manifest_digest"])
            entry = listed.get(release_path(manifest.model, manifest.version))
            if entry is None or entry.hashes.get("sha256") != sha256(row["manifest"]):
                raise BackupDamagedError(f"nobody signed {manifest.model}@{manifest.version}")
            wanted = {chunk.id for artifact in manifest.artifacts.values() for chunk in artifact.chunks}
            if row["state"] != "retired" and not wanted <= found.names:
                raise BackupDamagedError(f"the index lacks chunks of {manifest.model}@{manifest.version}")
    except RefusedError as error:
        raise BackupDamagedError(f"its signed documents do not hold: {error.detail}") from None


def _listed(known: Mapping[str, bytes]) -> Mapping[str, Any]:
    if "root" not in known or "targets" not in known:
        return {}
    root = documents.read(Root, known["root"])
    documents.verify(root.signed, "root", root, None)
    targets = documents.read(Targets, known["targets"])
    documents.verify(root.signed, "targets", targets, None)
    entries: dict[str, Any] = {}
    for role, data in known.items():
        if role.startswith("model-"):
            signed = documents.read(Targets, data)
            documents.verify(targets.signed, role, signed, None)
            entries |= signed.signed.targets
    return entries
