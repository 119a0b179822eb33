"""The sockets that clients connect to. The daemon holds them, so they outlive any front; systemd the daemon's.

I/O: disk, network.
"""

import contextlib
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.serving import listener_store
from agent.settings import ServingSettings
from shared.errors import BrokenError
from shared.notify import Handed

_BACKLOG: Final = 1024
_MAX_PATH: Final = 107  # of a Unix socket, in bytes


class ListenError(BrokenError):
    """The inference endpoint cannot be opened."""

    code = "E_LISTEN"
    default_remedy = "free the address, or set another serving.http_host, serving.http_port or serving.uds_path"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where applications reach the models."""

    http_host: str
    http_port: int
    uds_path: Path
    grpc: str | None = None  # host:port; None: no gRPC


@dataclass(frozen=True, slots=True)
class Listeners:
    tcp: socket.socket
    unix: socket.socket
    endpoints: Endpoints
    stored: bool  # systemd keeps the Unix socket for the next run, which needs its path

    def close(self) -> None:
        self.tcp.close()
        self.unix.close()
        if not self.stored:
            with contextlib.suppress(OSError):
                self.endpoints.uds_path.unlink()


def bind(settings: ServingSettings, state_dir: Path, handed: Sequence[Handed] = ()) -> Listeners:
    """Open both, or go on with those that systemd kept and `handed` over.

    Raises:
        ListenError: an address is taken, not ours, or too long.
    """
    path = settings.uds_path or state_dir / "inference.sock"
    wanted = f"{settings.http_host}:{settings.http_port}"
    kept = listener_store.Kept(handed)
    with _translated(wanted):
        family, _, _, _, address = socket.getaddrinfo(settings.http_host, settings.http_port, type=socket.SOCK_STREAM)[
            0
        ]
    tcp, unix = kept.tcp(family, str(address[0]), settings.http_port), kept.unix(path)
    stored = unix is not None
    kept.discard()
    if tcp is None:
        with _translated(wanted):
            tcp = _tcp(family, address)
        listener_store.store(tcp)
    try:
        unix = unix or _unix(path)
    except ListenError:
        tcp.close()
        raise
    stored = stored or listener_store.store(unix)
    host, port = tcp.getsockname()[:2]
    return Listeners(tcp, unix, Endpoints(host, port, path), stored)


@contextlib.contextmanager
def _translated(wanted: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ListenError(f"cannot listen on {wanted}: {error.strerror or error}") from None


def _tcp(family: int, address: Any) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError:
        found.close()
        raise
    return found


def _unix(path: Path) -> socket.socket:
    if len(str(path).encode()) > _MAX_PATH:
        raise ListenError(
            f"the path of the Unix socket is longer than {_MAX_PATH} bytes: {path}",
            remedy="set a shorter serving.uds_path",
        )
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()  # left by a daemon that was killed
        found.bind(str(path))
        path.chmod(0o666)  # who may enter the folder may ask, as everybody here may on the TCP port
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from None
    return found
