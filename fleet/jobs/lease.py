"""One embedded manager for all parts of a program that work on the same folder; it ends with the last of them.

I/O: disk, tasks.
"""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import yaml

from fleet.client import AsyncFleet
from fleet.jobs.book import Book
from fleet.rest.embedded import EmbeddedManager
from fleet.settings import FleetSettings
from shared.configuration import ConfigurationError

DEFAULT_FOLDER: Final = Path("flotilla-data")
#: A YAML file, its content, or nothing: all defaults, in `./flotilla-data`.
Config: TypeAlias = Mapping[str, Any] | Path | str | None


@dataclass
class _Running:
    manager: EmbeddedManager
    where: tuple[str, str]
    holders: int = 0


class Lease:
    """The right to an embedded manager. `fleet` takes it, `release` gives it back; both may be repeated."""

    _running: ClassVar[dict[Path, _Running]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, config: Config) -> None:
        said = _sections(config)
        deployment = said.get("deployment") or {}
        named = deployment.get("base_dir") or said.get("data_dir") or DEFAULT_FOLDER
        self.folder = Path(named).absolute()
        self.sections = {
            **said,
            "data_dir": str(self.folder),
            "deployment": {**deployment, "base_dir": str(self.folder)},
        }
        self.book = Book(self.folder)
        self._held = False
        self._client: tuple[asyncio.AbstractEventLoop, AsyncFleet] | None = None

    async def fleet(self) -> AsyncFleet:
        """The manager, started if nobody has yet, and set up for releases.

        Raises:
            FlotillaError: it cannot start.
        """
        url, token = await asyncio.to_thread(self._take)
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            made = AsyncFleet(url, token, keys=self.folder / "signing-keys")
            await made.initialise()
            self._client = (loop, made)
        return self._client[1]

    async def release(self) -> None:
        """No longer needed here."""
        if self._client is not None and self._client[0] is asyncio.get_running_loop():
            await self._client[1].close()
        self._client = None
        await asyncio.to_thread(self._give_back)

    @property
    def settings(self) -> FleetSettings:
        """The settings of the sections that were given, over defaults."""
        return FleetSettings.model_validate(self.sections)

    def _take(self) -> tuple[str, str]:
        with self._lock:
            found = self._running.get(self.folder)
            if found is None:
                manager = EmbeddedManager(self.folder, self.sections)
                found = self._running[self.folder] = _Running(manager, manager.start())
            if not self._held:
                self._held = True
                found.holders += 1
            return found.where

    def _give_back(self) -> None:
        with self._lock:
            found = self._running.get(self.folder)
            if not self._held or found is None:
                return
            self._held = False
            found.holders -= 1
            if not found.holders:
                del self._running[self.folder]
                found.manager.close()


def _sections(config: Config) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return dict(config)
    path = Path(config)
    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}", remedy="name another file") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found or {}, dict):
        raise ConfigurationError(f"{path}: sections such as `deployment:` are expected")
    return dict(found or {})
