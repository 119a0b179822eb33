"""Tell systemd how the service is (`sd_notify`); without systemd nothing happens.

    READY=1    it serves                      STATUS=...  one line for `systemctl status`
    WATCHDOG=1 its data path works            STOPPING=1  it is on its way out
    FDSTORE=1  keep these open descriptors until the next start; FDSTOREREMOVE=1 drops those of a name

I/O: network, disk.
"""

import logging
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

_FIRST: Final = 3  # descriptor that systemd hands over


class Handed(NamedTuple):
    """An open descriptor that systemd gave to this process at its start."""

    name: str
    descriptor: int


def notify(state: str, descriptors: Sequence[int] = ()) -> bool:
    """Send `state` (lines of `KEY=value`) to the socket that systemd named. True if it was sent."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.settimeout(1.0)
            door.connect(address)
            socket.send_fds(door, [state.encode()], list(descriptors))
    except OSError as error:
        logger.warning("systemd was not told state=%s error=%s", state.partition("=")[0], error)
        return False
    return True


def keep(name: str, descriptor: int) -> bool:
    """Have systemd keep an open descriptor and hand it over at the next start of this service. True if it was told."""
    return notify(f"FDSTORE=1\nFDNAME={name}", [descriptor])


def drop(name: str) -> bool:
    """Have systemd close what it keeps under this name. True if it was told."""
    return notify(f"FDSTOREREMOVE=1\nFDNAME={name}")


def handed() -> Sequence[Handed]:
    """What systemd gave to this process, which owns it from now on. A second call finds nothing."""
    owner, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if owner != str(os.getpid()) or not number.isdigit():
        return ()
    found = range(_FIRST, _FIRST + int(number))
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return [Handed(names[at] if at < len(names) else "", descriptor) for at, descriptor in enumerate(found)]


def watchdog_seconds() -> float | None:
    """How often `WATCHDOG=1` must come (a third of systemd's patience), or None if nobody watches."""
    micros = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not micros.isdigit() or int(micros) == 0 or owner != str(os.getpid()):
        return None
    return int(micros) / 3e6
