"""systemd as a service sees it: a socket to speak to, a store for open descriptors, a start that hands them over."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.notify import Handed

_START = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",") if number]
for at, descriptor in enumerate(kept):
    os.dup2(descriptor, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class Systemd:
    """The socket of one service. `store` holds what it had kept, as systemd does: the same again is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: list[Handed] = []
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(str(path))
        self._door.setblocking(False)

    async def hears(self, wanted: str, seconds: float = 30) -> list[str]:
        """Everything up to and including `wanted`, but for what concerns the store."""
        heard: list[str] = []
        async with asyncio.timeout(seconds):
            while wanted not in heard:
                heard += self.listen()
                await asyncio.sleep(0.005)
        return heard

    def listen(self) -> list[str]:
        """What was said up to now; the store is kept up to date."""
        heard: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._door, 4096, 8)
                heard += self._take(data.decode().splitlines(), descriptors)
        return heard

    def command(self, arguments: Sequence[str]) -> list[str]:
        """What starts our interpreter with `arguments` and hands over the store, whose descriptors are to be passed."""
        numbers = ",".join(str(entry.descriptor) for entry in self.store)
        names = ":".join(entry.name for entry in self.store)
        return [sys.executable, "-c", _START, numbers, names, *arguments]

    def close(self) -> None:
        self._door.close()
        self._drop({entry.name for entry in self.store})

    def _take(self, lines: list[str], descriptors: Sequence[int]) -> list[str]:
        said = dict(line.partition("=")[::2] for line in lines)
        name = said.get("FDNAME", "stored")
        if "FDSTORE" in said:
            known = [os.fstat(entry.descriptor).st_ino for entry in self.store]
            for descriptor in descriptors:
                if os.fstat(descriptor).st_ino in known:
                    os.close(descriptor)
                else:
                    self.store.append(Handed(name, descriptor))
            return []
        if "FDSTOREREMOVE" in said:
            self._drop({name})
            return []
        return lines

    def _drop(self, names: set[str]) -> None:
        for entry in [entry for entry in self.store if entry.name in names]:
            self.store.remove(entry)
            os.close(entry.descriptor)
