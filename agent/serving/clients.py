"""Which user of this machine is at the other end of a connection.

A Unix socket says it itself. For TCP over loopback the kernel's table of connections does: it names the user of the
client's end, too.

I/O: disk, network.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agent.serving.worker_wire import NOBODY

_CREDENTIALS: Final = struct.Struct("=iII")  # pid, uid, gid
_OVERFLOW: Final = 65534  # users that are not told apart in our user namespace
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_ESTABLISHED: Final = "01"


def user_of(connection: Any) -> int:
    """The user at the other end of `connection` (a socket); NOBODY where that cannot be found out."""
    with contextlib.suppress(OSError, ValueError):
        if connection.family == socket.AF_UNIX:
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return _known(_CREDENTIALS.unpack(data)[1])
        own, peer = connection.getsockname(), connection.getpeername()
        return tcp_user((peer[0], peer[1]), (own[0], own[1]))
    return NOBODY


def tcp_user(client: tuple[str, int], server: tuple[str, int] | None = None) -> int:
    """The user who holds the client's end (host, port) of a TCP connection over loopback."""
    host = _plain(client[0])
    if host is None or not host.is_loopback:
        return NOBODY
    for fields in _rows(client[1]):
        ours = server is None or _end(fields[2]) == (_plain(server[0]), server[1])
        if ours and fields[3] == _ESTABLISHED and _end(fields[1]) == (host, client[1]):
            return _known(int(fields[7]))
    return NOBODY


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _known(user: int) -> int:
    return NOBODY if user == _OVERFLOW else user


def _plain(host: str) -> Address | None:
    try:
        return _unmapped(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _rows(port: int) -> Iterator[list[str]]:
    """The kernel's fields of each TCP connection whose local end has this port."""
    digits = f":{port:04X}"
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(digits):
                    yield fields


def _end(text: str) -> tuple[Address, int]:
    """`0100007F:1F90`: four-byte words in the machine's order, each as eight digits."""
    digits, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    return _unmapped(ipaddress.ip_address(raw)), int(port, 16)
