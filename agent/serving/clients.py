"""Which user of this machine is at the other end of a connection.

A Unix socket says it itself. For TCP over loopback the kernel knows the user of the client's end, too: it is asked for
that one connection (sock_diag(7)), or, where that is not allowed, its table of all connections is read.

I/O: disk, network.
"""

import contextlib
import errno
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Any, Final

from agent.serving.worker_wire import NOBODY

_CREDENTIALS: Final = struct.Struct("=iII")  # pid, uid, gid
_OVERFLOW: Final = 65534  # users that are not told apart in our user namespace
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_ESTABLISHED: Final = "01"

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_ERROR: Final = 2  # NLMSG_ERROR
_HEADER: Final = struct.Struct("=IHHII")  # of a message: length, kind, flags, sequence, port
_ASKED: Final = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states
_ENDS: Final = struct.Struct("!HH16s16s12s")  # inet_diag_sockid: ports, addresses, interface and cookie
_NO_COOKIE: Final = bytes(4) + b"\xff" * 8
_USER_AT: Final = _HEADER.size + 4 + _ENDS.size + 12  # in the answer, inet_diag_msg

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]


def user_of(connection: Any) -> int:
    """The user at the other end of `connection` (a socket); NOBODY where that cannot be found out."""
    with contextlib.suppress(OSError, ValueError):
        if connection.family == socket.AF_UNIX:
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return _known(_CREDENTIALS.unpack(data)[1])
        return tcp_user(connection.getpeername()[:2], connection.getsockname()[:2])
    return NOBODY


def tcp_user(client: tuple[str, int], server: tuple[str, int]) -> int:
    """The user who holds the client's end of the TCP connection between these two (host, port), over loopback."""
    ours, theirs = _plain(server), _plain(client)
    if ours is None or theirs is None or not theirs[0].is_loopback:
        return NOBODY
    if ours[0].is_unspecified:  # a listener on all addresses: over loopback a client mostly asks its own
        ours = theirs[0], ours[1]
    try:
        return _known(_asked(theirs, ours))
    except OSError as error:
        return NOBODY if error.errno == errno.ENOENT else _known(_listed(theirs, ours))


def _known(user: int) -> int:
    return NOBODY if user == _OVERFLOW else user


def _plain(end: tuple[str, int]) -> End | None:
    try:
        return _unmapped(ipaddress.ip_address(end[0].partition("%")[0])), end[1]
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _asked(client: End, server: End) -> int:
    """From the kernel, for this connection. Raises OSError: ENOENT if there is none, others if it does not say."""
    family = socket.AF_INET if client[0].version == 4 else socket.AF_INET6
    ends = _ENDS.pack(client[1], server[1], client[0].packed, server[0].packed, _NO_COOKIE)
    body = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, 1, 1, 0) + body)
        answer = kernel.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(number, "the kernel does not tell")
    return int(struct.unpack_from("=I", answer, _USER_AT)[0])


def _listed(client: End, server: End) -> int:
    """From the table of all connections."""
    digits = f":{client[1]:04X}"
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                mine = fields[1].endswith(digits) and fields[3] == _ESTABLISHED
                if mine and _end(fields[1]) == client and _end(fields[2]) == server:
                    return int(fields[7])
    return NOBODY


def _end(text: str) -> End:
    """`0100007F:1F90`: four-byte words in the machine's order, each as eight digits."""
    digits, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    return _unmapped(ipaddress.ip_address(raw)), int(port, 16)
