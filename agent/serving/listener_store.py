"""The listening sockets over a restart of the agent: systemd keeps them, so that who connects meanwhile waits.

    start   what systemd hands over -> listens, at the address of the settings, its file is still there: taken
                                    -> anything else: closed, and dropped from the store
    new     stored as soon as it listens

Nothing is handed over and nothing kept where systemd is not there, or its unit says FileDescriptorStoreMax=0 (ADR 12).

I/O: disk, network.
"""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.notify import Handed, drop, keep

logger = logging.getLogger(__name__)

_HTTP: Final = "flotilla-http"
_UNIX: Final = "flotilla-unix"


class Kept:
    """What the run before left: listening sockets by the name under which they are stored."""

    def __init__(self, handed: Sequence[Handed]) -> None:
        self._sockets: dict[str, socket.socket] = {}
        for name, descriptor in handed:
            found = _listener(descriptor) if name.startswith((_HTTP, _UNIX)) and name not in self._sockets else None
            if found is None:
                os.close(descriptor)
                _forget(name, "it is no socket of ours")
            else:
                self._sockets[name] = found

    def tcp(self, family: int, host: str, port: int) -> socket.socket | None:
        """The one that listens there already. Port 0: any of that host."""
        found = self._sockets.get(_HTTP)
        if found is None or (found.family, found.type) != (family, socket.SOCK_STREAM):
            return None
        address = found.getsockname()
        return self._sockets.pop(_HTTP) if address[0] == host and port in (0, address[1]) else None

    def unix(self, path: Path) -> socket.socket | None:
        """The one that whoever connects to `path` reaches."""
        name = _name_of(path)
        found = self._sockets.get(name) if name else None
        if name is None or found is None or found.family != socket.AF_UNIX or found.getsockname() != str(path):
            return None
        return self._sockets.pop(name)

    def discard(self) -> None:
        """Close what was not taken; its addresses are free when this returns."""
        while self._sockets:
            name, found = self._sockets.popitem()
            address = found.getsockname()
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)  # also what systemd still holds: it does not listen any more
            found.close()
            if isinstance(address, str) and address and _name_of(Path(address)) == name:
                Path(address).unlink()
            _forget(name, f"the settings have another address than {_readable(address)}")


def store(listener: socket.socket) -> bool:
    """Have it kept over a restart. False: there is no systemd, or it does not listen."""
    if listener.family != socket.AF_UNIX:
        return keep(_HTTP, listener.fileno())
    name = _name_of(Path(listener.getsockname()))
    return name is not None and keep(name, listener.fileno())


def _listener(descriptor: int) -> socket.socket | None:
    """A socket that owns the descriptor, if clients can connect to it."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    found = socket.socket(fileno=descriptor)
    with contextlib.suppress(OSError):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return found
    found.detach()
    return None


def _name_of(path: Path) -> str | None:
    """Names this very file: another one that takes its place later has another name."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISSOCK(found.st_mode):
            return f"{_UNIX}-{found.st_ino}-{found.st_mtime_ns}"
    return None


def _forget(name: str, reason: str) -> None:
    logger.info("a kept descriptor is dropped name=%r reason=%r", name, reason)
    drop(name)


def _readable(address: Any) -> str:
    return address if isinstance(address, str) else ":".join(map(str, address[:2]))
