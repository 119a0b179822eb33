"""The newest 168 hours of every row, as arrays, and the sums over the windows that end now.

    counts[row, hour % 168, place]     a device: 4 bytes a count, 257 kB with 20 features of 18 bins; a group: 8 bytes

Nothing is kept as a running sum, so that a window that comes late, in any order, simply goes to its hour.

I/O: none.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fleet.telemetry.calibrated import WINDOWS

HOURS: Final = 168
#: Rows that are summed at once: what is gathered for them stays small.
BLOCK: Final = 64


class Ring:
    """Rows by name. Belongs to one task."""

    def __init__(self, size: int, kind: DTypeLike) -> None:
        self._counts: NDArray[Any] = np.zeros((0, HOURS, size), dtype=kind)
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._head: int | None = None

    @property
    def names(self) -> Sequence[str]:
        """Every row that there is."""
        return list(self._rows)

    @property
    def bytes(self) -> int:
        """Memory that the counts take."""
        return int(self._counts.nbytes)

    def advance(self, hour: int) -> bool:
        """The newest hour is `hour` now; what is older than 168 hours is gone. True if it was another one."""
        if self._head is None or hour <= self._head:
            moved, self._head = self._head is None, hour if self._head is None else self._head
            return moved
        for new in range(max(self._head + 1, hour - HOURS + 1), hour + 1):
            self._counts[:, new % HOURS] = 0
        self._head = hour
        return True

    def add(self, name: str, hour: int, vector: NDArray[np.int64]) -> None:
        """Add `vector` to an hour of the newest 168; what lies outside them is left out."""
        if self._head is None or not self._head - HOURS < hour <= self._head:
            return
        row = self._row(name)
        self._counts[row, hour % HOURS] += vector.astype(self._counts.dtype)

    def forget(self, name: str) -> None:
        """This row is over."""
        row = self._rows.pop(name, None)
        if row is not None:
            self._counts[row] = 0
            self._free.append(row)

    def windows(self, names: Sequence[str]) -> NDArray[np.int64]:
        """[names, WINDOWS, places]: sums over the newest 1, 2, 4 ... 128 hours."""
        order = (self._newest() - np.arange(WINDOWS[-1])) % HOURS
        starts = [0, *WINDOWS[:-1]]
        blocks = [np.zeros((0, len(WINDOWS), self._counts.shape[2]), dtype=np.int64)]
        for rows in self._blocks(names):
            parts = np.add.reduceat(self._counts[rows][:, order].astype(np.int64), starts, axis=1)
            blocks.append(np.cumsum(parts, axis=1))
        return np.concatenate(blocks)

    def recent(self, names: Sequence[str], hours: int) -> NDArray[np.int64]:
        """[names, places]: the sum over the newest `hours`."""
        order = (self._newest() - np.arange(hours)) % HOURS
        blocks = [np.zeros((0, self._counts.shape[2]), dtype=np.int64)]
        blocks += [self._counts[rows][:, order].sum(axis=1, dtype=np.int64) for rows in self._blocks(names)]
        return np.concatenate(blocks)

    def _newest(self) -> int:
        if self._head is None:
            raise RuntimeError("the ring was never told the time")
        return self._head

    def _blocks(self, names: Sequence[str]) -> list[list[int]]:
        rows = [self._row(name) for name in names]
        return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]

    def _row(self, name: str) -> int:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._free.pop() if self._free else len(self._rows)
            if row >= len(self._counts):
                more = np.zeros((max(8, len(self._counts)), *self._counts.shape[1:]), dtype=self._counts.dtype)
                self._counts = np.concatenate([self._counts, more])
        return row
