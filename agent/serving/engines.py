"""Compiled engines: made once for each model, GPU and runtime, before the version may serve; thrown away with it.

    <state_dir>/engines/<model digest>-<what they were made for>/made/          the provider's own files
                                                                 scratch/       the driver's, while building
                                                                 complete.json  written last: every file by digest

A provider takes what it finds: it names its files by the graph without the weights and notices neither a file that
ends half-way nor another driver. So the folder is named by all that matters, and without a last word that fits every
file it is emptied and made again (ADR 14). Workers only read what is complete.

I/O: disk.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.serving import providers
from agent.serving.providers import Options
from agent.settings import ServingSettings
from shared import durable
from shared.identifiers import sha256

_NAME: Final = 16  # characters of each digest in a folder's name
_MARK: Final = "complete.json"
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """The engines of one model for one runtime."""

    folder: Path

    @property
    def made(self) -> Path:
        """Where the provider puts them."""
        return self.folder / "made"

    @property
    def scratch(self) -> Path:
        """Where the driver may write while they are made."""
        return self.folder / "scratch"

    def complete(self) -> bool:
        """Whether every file is there as it was when they were finished."""
        try:
            mark = json.loads((self.folder / _MARK).read_bytes())
            return bool(mark["files"]) and mark["files"] == _files(self.made)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def prepare(self) -> None:
        """Empty and writable, unless complete. What an interrupted build left is gone."""
        if self.complete():
            return
        self.discard()
        for folder in (self.folder.parent, self.folder, self.made, self.scratch):
            durable.make_folder(folder)

    def finish(self, *, seconds: float) -> bool:
        """The provider is done: from now on this is complete. False when it left nothing."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        files = _files(self.made)
        if not files:
            return False
        for name in files:
            _sync(self.made / name)
        durable.sync_folder(self.made)
        mark = {"files": files, "seconds": round(seconds, 1)}
        durable.replace_file(self.folder / _MARK, json.dumps(mark, indent=1).encode())
        return True

    def discard(self) -> None:
        """Nothing is left of it. The last word goes first, so that an interruption leaves nothing that looks whole."""
        (self.folder / _MARK).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process that loads a model is told of providers."""

    providers: tuple[str, ...]  # best first
    options: Options
    place: Place | None = None  # None: nothing is compiled ahead
    building: bool = False  # engines are still to be made, which takes long

    @property
    def readable(self) -> list[str]:
        """Folders beside the model's that it needs."""
        return [] if self.place is None else [str(self.place.made)]

    @property
    def writable(self) -> list[str]:
        """Folders that it fills. None once they are complete."""
        return [str(self.place.scratch), str(self.place.made)] if self.place is not None and self.building else []


class Engines:
    """All engines of a device."""

    def __init__(self, state_dir: Path, settings: ServingSettings) -> None:
        self._root = state_dir / "engines"
        self._settings = settings

    def setup(self, fit: Sequence[str], *, digest: str, half: bool, runtime: Sequence[str]) -> Setup:
        """For the model whose file has this digest, on the providers `fit`.

        Args:
            half: the release allows 16 bits.
            runtime: versions of runtime, compiler and driver, and the GPU (agent.serving.worker_facts).
        """
        half = half and self._settings.fp16 == "auto"
        plain = self._options(fit, None, half)
        if not digest or not providers.builds(fit):
            return Setup(tuple(fit), plain)
        made_for = json.dumps([plain[providers.TENSORRT], list(runtime)], sort_keys=True).encode()
        place = Place(self._root / f"{digest[:_NAME]}-{sha256(made_for)[:_NAME]}")
        return Setup(tuple(fit), self._options(fit, str(place.made), half), place, not place.complete())

    def finish(self, place: Place, *, seconds: float) -> bool:
        """As `Place.finish`; what the model had for another runtime goes."""
        if not place.finish(seconds=seconds):
            return False
        for folder in self._root.glob(f"{place.folder.name.partition('-')[0]}-*"):
            if folder != place.folder:
                Place(folder).discard()
        return True

    def _options(self, fit: Sequence[str], engines: str | None, half: bool) -> Options:
        most = self._settings.gpu_memory_bytes
        return providers.options(fit, engines=engines, half=half, gpu_memory_bytes=most)

    def prune(self, wanted: Callable[[], Collection[str]]) -> None:
        """Keep only engines of models whose digest is `wanted`. Nobody is asked where there are none."""
        folders = list(self._root.glob("*-*"))
        keep = {digest[:_NAME] for digest in wanted()} if folders else set()
        for folder in folders:
            if folder.name.partition("-")[0] not in keep:
                Place(folder).discard()


def _files(folder: Path) -> dict[str, str]:
    """Name -> digest of each file in `folder`."""
    return {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()
