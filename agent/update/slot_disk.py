"""Slot folders and the durable record of which slot answers.

    <state_dir>/models/<model>/slots.json      slots.Record, replaced at once
    <state_dir>/models/<model>/{a,b}/          model.onnx golden.npz baseline.json manifest.json, read-only
    <state_dir>/models/<model>/kept/<digest>/  the same of versions that were good and had to leave their slot

I/O: disk.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from agent.update.lifecycle import SlotName
from agent.update.reasons import DamagedJournalError, DamagedSlotError
from agent.update.rebuilding import Found
from agent.update.slots import Record
from shared import durable
from shared.errors import BadInputError
from shared.identifiers import sha256
from shared.manifest import ArtifactName, Manifest

FILES: Final[Mapping[ArtifactName, str]] = {
    "model": "model.onnx",
    "golden": "golden.npz",
    "baseline": "baseline.json",
}
MANIFEST_FILE: Final = "manifest.json"
SLOTS: Final[tuple[SlotName, SlotName]] = ("a", "b")
_RECORD: Final = TypeAdapter(Record)
_BLOCK_BYTES: Final = 1024 * 1024


class SlotDisk:
    """The models folder of one device."""

    def __init__(self, state_dir: Path) -> None:
        self._models = state_dir / "models"
        durable.make_folder(self._models)

    def models(self) -> tuple[str, ...]:
        """Every model that this device has a record or files of."""
        records = {found.parent.name for found in self._models.glob("*/slots.json")}
        files = {found.parent.parent.name for found in self._models.glob(f"*/[ab]/{MANIFEST_FILE}")}
        return tuple(sorted(records | files))

    def read(self, model: str) -> Record:
        """The record of `model`; an empty one when it is new.

        Raises:
            DamagedJournalError: the file is not a record, cannot be read, or is missing beside slots with files.
        """
        path = self._models / model / "slots.json"
        try:
            return _RECORD.validate_json(path.read_bytes())
        except FileNotFoundError:
            if any((self.folder(model, slot) / MANIFEST_FILE).exists() for slot in SLOTS):
                raise DamagedJournalError(f"{path} is missing") from None
            return Record(model)
        except OSError as error:
            raise DamagedJournalError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            raise DamagedJournalError(f"{path}: {str(error).splitlines()[0]}") from None

    def write(self, record: Record) -> None:
        """Durable when it returns."""
        folder = self._models / record.model
        durable.make_folder(folder)
        durable.replace_file(folder / "slots.json", _RECORD.dump_json(record, indent=1))

    def folder(self, model: str, slot: SlotName) -> Path:
        """Where the files of a slot lie, whether or not they do."""
        return self._models / model / slot

    def file(self, model: str, slot: SlotName, artifact: ArtifactName) -> Path:
        """One file of a slot."""
        return self.folder(model, slot) / FILES[artifact]

    def clear(self, model: str, slot: SlotName) -> None:
        """Remove a slot's files durably. An empty slot stays empty."""
        folder = self.folder(model, slot)
        if folder.exists():
            folder.chmod(0o700)
            shutil.rmtree(folder)
            durable.sync_folder(folder.parent)

    # versions beyond the two slots

    def put_away(self, model: str, slot: SlotName, digest: str, *, limit: int, spare: str = "") -> None:
        """Keep a slot's files as the version `digest`, and of those kept the newest `limit`, beside `spare`, which is
        about to be taken out. The slot is empty then."""
        folder, kept = self.folder(model, slot), self._kept(model)
        if limit > 0 and folder.exists() and not (kept / digest).exists():
            durable.make_folder(kept)
            folder.rename(kept / digest)
            os.utime(kept / digest)  # the newest
            durable.sync_folder(kept)
        others = [path for path in self._oldest_first(model) if path.name != spare]
        for old in others[: -limit or None]:
            shutil.rmtree(old)

    def keeps(self, model: str, digest: str) -> bool:
        """True when the version is kept beside the slots."""
        return (self._kept(model) / digest).is_dir()

    def take_out(self, model: str, slot: SlotName, digest: str) -> bool:
        """Bring a kept version back into a slot; True if every byte of it is there. A second call says the same."""
        folder = self.folder(model, slot)
        if self.keeps(model, digest):
            self.clear(model, slot)
            (self._kept(model) / digest).rename(folder)
            durable.sync_folder(folder.parent)
        if not (folder / MANIFEST_FILE).exists():
            return False
        try:
            self.verified(model, slot, digest)
        except DamagedSlotError:
            self.clear(model, slot)
            return False
        return True

    def make_room(self, model: str, needed_bytes: int) -> None:
        """Give up kept versions, the oldest first, until so much is free or none is left."""
        for old in self._oldest_first(model):
            if self.free_bytes() >= needed_bytes:
                return
            shutil.rmtree(old)

    def kept_bytes(self, model: str) -> int:
        """What giving up all kept versions would give back."""
        return sum(path.stat().st_size for path in self._kept(model).glob("*/*"))

    def _oldest_first(self, model: str) -> list[Path]:
        return sorted(self._kept(model).glob("*"), key=lambda path: path.stat().st_mtime_ns)

    def _kept(self, model: str) -> Path:
        return self._models / model / "kept"

    # what lies in a slot

    def manifest(self, model: str, slot: SlotName, digest: str | None) -> Manifest:
        """The manifest in a slot, which must be the one named `digest`.

        Raises:
            DamagedSlotError: missing or other bytes.
        """
        try:
            return Manifest.parse((self.folder(model, slot) / MANIFEST_FILE).read_bytes(), digest)
        except (OSError, BadInputError) as error:
            raise DamagedSlotError(f"slot {slot} of {model}: {error}") from None

    def verified(self, model: str, slot: SlotName, digest: str | None) -> Manifest:
        """The manifest of a slot, after every file was compared with it.

        Raises:
            DamagedSlotError: some byte differs.
        """
        manifest = self.manifest(model, slot, digest)
        for name, artifact in manifest.artifacts.items():
            if _digest(self.file(model, slot, name)) != artifact.digest:
                raise DamagedSlotError(f"slot {slot} of {model}: {FILES[name]} is not what was installed")
        return manifest

    def found(self, model: str, slot: SlotName) -> Found | None:
        """The release in a slot whatever the record says, every byte checked; None when there is none, or not whole."""
        try:
            data = (self.folder(model, slot) / MANIFEST_FILE).read_bytes()
            manifest = self.verified(model, slot, sha256(data))
        except (OSError, DamagedSlotError):
            return None
        if manifest.model != model:
            return None
        return Found(manifest.version, sha256(data), manifest.counter, manifest.minimum_counter)

    def manifest_bytes(self, digest: str) -> bytes | None:
        """The manifest called `digest`, if some slot holds its release."""
        for path in self._models.glob(f"*/[ab]/{MANIFEST_FILE}"):
            with contextlib.suppress(OSError):
                if sha256(data := path.read_bytes()) == digest:
                    return data
        return None

    def model_digests(self) -> set[str]:
        """Digest of the model's file in every slot that holds a release."""
        found = [Manifest.parse(path.read_bytes()) for path in self._models.glob(f"*/[ab]/{MANIFEST_FILE}")]
        return {manifest.artifacts["model"].digest for manifest in found}

    def free_bytes(self) -> int:
        """What a process without privileges may still write."""
        found = os.statvfs(self._models)
        return found.f_bavail * found.f_frsize

    def used_bytes(self, model: str, slot: SlotName) -> int:
        """What clearing the slot would give back."""
        return sum(path.stat().st_size for path in self.folder(model, slot).glob("*"))


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                found.update(block)
    except OSError as error:
        raise DamagedSlotError(f"{path.name}: {error.strerror}") from None
    return found.hexdigest()
