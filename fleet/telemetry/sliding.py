"""The counts of the newest stretch of time, kept by adding what comes and subtracting what falls out.

I/O: none.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fleet.telemetry.baselines import Reference, fits
from shared.messages import TelemetryWindow


@dataclass(frozen=True, slots=True)
class Key:
    """One version of one model on one device."""

    device: str
    model: str
    version: str


@dataclass(slots=True)
class _Sums:
    entries: deque[tuple[datetime, Mapping[str, tuple[int, ...]]]] = field(default_factory=deque)
    counts: dict[str, list[int]] = field(default_factory=dict)


class Sliding:
    """Counts of every key over the last `length`. Belongs to one task."""

    def __init__(self, length: timedelta) -> None:
        self._length = length
        self._sums: dict[Key, _Sums] = defaultdict(_Sums)
        self.refused = 0  # features over bins that are not those of the reference

    def add(self, at: datetime, window: TelemetryWindow, references: Mapping[str, Reference]) -> Key:
        """Take one window that came at `at`. Features that the reference does not know are left out."""
        key = Key(window.device, window.model, window.version)
        taken: dict[str, tuple[int, ...]] = {}
        for name, counts in window.features.items():
            reference = references.get(name)
            if reference is None or not fits(reference, counts):
                self.refused += 1
            else:
                taken[name] = counts.counts
        sums = self._sums[key]
        sums.entries.append((at, taken))
        _sum(sums.counts, taken, 1)
        return key

    def expire(self, now: datetime) -> set[Key]:
        """Forget what is older than `length`; the keys whose counts changed."""
        changed = set[Key]()
        for key, sums in self._sums.items():
            while sums.entries and sums.entries[0][0] <= now - self._length:
                _sum(sums.counts, sums.entries.popleft()[1], -1)
                changed.add(key)
        return changed

    def forget(self, keys: Iterable[Key]) -> None:
        """These versions no longer serve on these devices."""
        for key in keys:
            self._sums.pop(key, None)

    def known(self) -> set[Key]:
        """Every key that was ever heard of and not forgotten."""
        return set(self._sums)

    def counts(self, key: Key) -> Mapping[str, list[int]]:
        """Feature -> counts over the bins of its reference."""
        return self._sums[key].counts if key in self._sums else {}


def _sum(totals: dict[str, list[int]], counts: Mapping[str, tuple[int, ...]], sign: int) -> None:
    for name, more in counts.items():
        before = totals.setdefault(name, [0] * len(more))
        for index, number in enumerate(more):
            before[index] += sign * number
