"""Shared memory that the front receives into and the workers answer in: places of equal size, taken and given back.

The file is sparse: its size is only a promise of addresses, memory is what was touched.

I/O: disk.
"""

import fcntl
import mmap
import os
from typing import Final

from agent.serving.worker_wire import REPLY_BYTES, REQUEST_BYTES, SLOT_BYTES

_SPARE: Final = 128  # places beyond the queue: held by workers, or being received
_WARM: Final = 8  # places that keep all their memory: new pages cost more than a copy
_KEEP: Final = 256 * 1024  # of each half of the others; what lies beyond is given back to the system


def create(queue_limit: int) -> int:
    """A new arena for a queue of this length, as a file descriptor. Its size is sealed: a worker cannot shorten it."""
    descriptor = os.memfd_create("flotilla-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, (queue_limit + _SPARE) * SLOT_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


class Arena:
    """The front's view: which places are free."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._view = memoryview(self._memory)
        self._free = list(range(len(self._memory) // SLOT_BYTES - 1, -1, -1))  # last in, first out: few pages stay warm

    def acquire(self) -> int | None:
        """A free place, or None."""
        return self._free.pop() if self._free else None

    def release(self, slot: int, *, request_bytes: int, reply_bytes: int = 0) -> None:
        """Give a place back of which so much was used. Nobody may write to it any more."""
        start = slot * SLOT_BYTES
        if slot >= _WARM:
            self._trim(start, request_bytes)
            self._trim(start + REQUEST_BYTES, reply_bytes)
        self._free.append(slot)

    def request(self, slot: int) -> memoryview:
        """The half for the request."""
        start = slot * SLOT_BYTES
        return self._view[start : start + REQUEST_BYTES]

    def write(self, slot: int, offset: int, data: bytes | memoryview) -> None:
        """Put a request there."""
        start = slot * SLOT_BYTES + offset
        self._view[start : start + len(data)] = data

    def reply(self, slot: int, size: int) -> memoryview:
        """The first `size` bytes of the half for the reply."""
        start = slot * SLOT_BYTES + REQUEST_BYTES
        return self._view[start : start + min(size, REPLY_BYTES)]

    def _trim(self, start: int, used: int) -> None:
        if used > _KEEP:
            beyond = -(-(used - _KEEP) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_REMOVE, start + _KEEP, beyond)
