"""Memory that clients share with us: regions by user and name, as the front registered them.

What lies in a region is its client's: it may change it or cut it short at any moment. So sizes are looked at anew for
each request, whole numbers (which a model may use as addresses) are copied before they are used, and after the answer
nothing is read any more. Python 3.10 syntax: runs under the worker's interpreter.

I/O: disk.
"""

import mmap
import os
from typing import Any

from agent.serving.worker_tensors import BadRequestError
from agent.serving.worker_wire import News


class Region:
    """Mapped memory of a client. The descriptor becomes its own, also when it cannot be mapped."""

    def __init__(self, descriptor: int, news: News) -> None:
        self._descriptor = descriptor
        self.name = news.name
        self.size = news.size
        self.writable = news.writable
        self._end = news.offset + news.size
        start = news.offset - news.offset % mmap.ALLOCATIONGRANULARITY
        access = mmap.ACCESS_WRITE if news.writable else mmap.ACCESS_READ
        memory = mmap.mmap(descriptor, self._end - start, access=access, offset=start)
        self._view = memoryview(memory)[news.offset - start :]

    def __del__(self) -> None:
        os.close(self._descriptor)

    def part(self, offset: int, size: int) -> memoryview:
        """`size` bytes from `offset` on.

        Raises:
            BadRequestError: they are not all there, or not any more.
        """
        if offset + size > self.size:
            raise BadRequestError(f"Invalid offset + byte size for shared memory region: '{self.name}'")
        if os.fstat(self._descriptor).st_size < self._end:
            raise _cut(self.name)
        return self._view[offset : offset + size]


class Regions:
    """All regions of all users. `changes` counts what came and went."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], Region] = {}
        self._cut: set[tuple[int, str]] = set()  # made shorter before they were mapped here
        self.changes = 0

    def hear(self, news: News, descriptor: int) -> None:
        """The front, which looked at it, says that a region came (with its file) or went."""
        self.changes += 1
        place = (news.user, news.name)
        self._found.pop(place, None)
        self._cut.discard(place)
        if news.gone:
            return
        try:
            self._found[place] = Region(descriptor, news)
        except (OSError, ValueError, OverflowError):
            self._cut.add(place)

    def clear(self) -> None:
        self.changes += 1
        self._found.clear()
        self._cut.clear()

    def part(self, user: int, parameters: "dict[str, Any]", write: bool) -> memoryview:
        """The bytes that the parameters of an input or output name.

        Raises:
            BadRequestError: no such region, or not so much of it.
        """
        name = parameters["shared_memory_region"]
        region = self._found.get((user, name)) if isinstance(name, str) else None
        if region is None and isinstance(name, str) and (user, name) in self._cut:
            raise _cut(str(name))
        if region is None:
            raise BadRequestError(f"Unable to find shared memory region: '{name}'")
        size, offset = (
            _bytes(parameters, key, region.name) for key in ("shared_memory_byte_size", "shared_memory_offset")
        )
        if write and not region.writable:
            raise BadRequestError(
                f"shared memory region '{name}' may only be read by this endpoint: no output goes there"
            )
        return region.part(offset, size)


def _cut(name: str) -> BadRequestError:
    return BadRequestError(f"shared memory region '{name}' was made shorter by its client: register it again")


def _bytes(parameters: "dict[str, Any]", key: str, name: str) -> int:
    value = parameters.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequestError(f"Unable to parse '{key}' of shared memory region '{name}': not a number of bytes")
    return value
