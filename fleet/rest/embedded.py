"""A manager on a thread of this process: the daemon's own parts and tasks, without the daemon.

I/O: disk, network, process, tasks.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from fleet.access.first_token import passing_admin
from fleet.settings import FleetSettings
from shared.configuration import load
from shared.errors import BrokenError, FlotillaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
#: Loopback and free ports, unless the file or the caller says otherwise.
_FREE_PORTS: Final = {"server.port": 0, "mqtt.embedded_port": 0}


class EmbeddedError(BrokenError):
    """The manager of this process ended or did not start."""

    code = "E_EMBEDDED"
    default_remedy = "the error that caused it tells why; start it again"


class EmbeddedManager:
    """Starts, and ends, with whoever holds it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        file = folder / "fleet.yaml"
        flat = dict(_flat(settings, ()))
        loaded = load(FleetSettings, file if file.exists() else None, overrides={**flat, "data_dir": str(folder)})
        free = {key: port for key, port in _FREE_PORTS.items() if loaded.origin(key) == "default"}
        again = {**free, **flat, "data_dir": str(folder)}
        self._settings = load(FleetSettings, file if file.exists() else None, overrides=again).settings
        self._thread = threading.Thread(target=self._run, name="flotilla-manager", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failed: BaseException | None = None
        self._where = ("", "")

    def start(self) -> tuple[str, str]:
        """Its URL and an admin token that ends with it.

        Raises:
            FlotillaError: it cannot start; the reason.
            EmbeddedError: it did not start in time.
        """
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            self.close()
            raise EmbeddedError(f"the manager did not start within {START_SECONDS:g} s")
        if self._failed is not None:
            raise _plain(self._failed)
        return self._where

    def close(self) -> None:
        """End it; harmless to repeat."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # handed to whoever waits in `start`
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from fleet.daemon import serve  # loads the whole manager: 1 s
        from fleet.parts import listening, opened

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with listening(self._settings) as door:
            async with (
                opened(self._settings, door) as (manager, broker),
                passing_admin(manager.database, manager.pepper, manager.clock) as token,
            ):
                self._where = (manager.manager_url, token)
                await serve(manager, broker, door, self._stop, ready=self._ready.set)


def _flat(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """`{"server": {"port": 1}}` as `("server.port", 1)`; free-form tables such as `channels` stay whole."""
    for key, value in tree.items():
        path = (*above, key)
        if isinstance(value, dict) and value and key != "channels":
            yield from _flat(value, path)
        else:
            yield ".".join(path), value


def _plain(error: BaseException) -> BaseException:
    """The first error of our own inside a group, or a wrapping of what happened."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FlotillaError):
        return error
    wrapped = EmbeddedError(f"the manager ended: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
