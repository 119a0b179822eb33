"""Tell systemd how the service is (`sd_notify`); without systemd nothing happens.

    READY=1    it serves                      STATUS=...  one line for `systemctl status`
    WATCHDOG=1 its data path works            STOPPING=1  it is on its way out

I/O: network, disk.
"""

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> bool:
    """Send `state` (lines of `KEY=value`) to the socket that systemd named. True if it was sent."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.settimeout(1.0)
            door.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("systemd was not told state=%s error=%s", state.partition("=")[0], error)
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often `WATCHDOG=1` must come (a third of systemd's patience), or None if nobody watches."""
    micros = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not micros.isdigit() or int(micros) == 0 or owner != str(os.getpid()):
        return None
    return int(micros) / 3e6
