"""The bytes of a file as they are asked for, a window at a time: for the scan, which passes over the weights.

A mapping would do the same with less code, but a disk that fails ends the process then (SIGBUS), and every place that
was looked at keeps its surroundings mapped.

I/O: disk.
"""

import os
from typing import Final, overload

_WINDOW_BYTES: Final = 64 * 1024


class Peek:
    """Reads like `bytes`, and holds one window in memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._start, self._window = 0, b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> bytes: ...
    def __getitem__(self, place: int | slice) -> int | bytes:
        """One byte at a place from 0 on, or those of a slice without a step.

        Raises:
            IndexError: beyond the end.
            OSError: the disk fails.
        """
        if isinstance(place, slice):
            start, end, _ = place.indices(self._size)
            offset = self._offset(start, end - start)
            return self._window[offset : offset + max(0, end - start)]
        offset = self._offset(place, 1)
        return self._window[offset]

    def _offset(self, place: int, size_bytes: int) -> int:
        """Where in the window `place` is, after so many bytes from there on were read."""
        offset = place - self._start
        if not 0 <= offset <= len(self._window) - size_bytes:
            self._window = os.pread(self._descriptor, max(size_bytes, _WINDOW_BYTES), place)
            self._start, offset = place, 0
        return offset
