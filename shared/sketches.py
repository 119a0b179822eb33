"""Mergeable counts: fixed bins of a release's baseline, logarithmic bins for latency.

Fixed bins make every statistic exact on the bins, mergeable by addition and deterministic
(`research`: KLL at n = 1e5 false-alarms always; see ADR 7 and docs/drift.md).

I/O: none.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from shared.identifiers import sha256

QUANTILE_BINS: Final = 16
OVERFLOW_SHARE: Final = 0.001  # of the reference below the first and above the last edge
LATENCY_RATIO: Final = 1.02  # one latency bin is 2 % wide
_LOG_RATIO: Final = math.log(LATENCY_RATIO)


CONFIDENCE: Final = "output.confidence"
#: Of its reference rows those that were answered rightly, over the same bins; no device counts it (ADR 22).
RIGHT: Final = "right.confidence"


class FeatureBaseline(BaseModel):
    """Reference of one feature: `edges` ascending, `len(edges) + 1` counts, the outer two overflow.

    A categorical feature (`kind` "category") has the edges 0.5, 1.5, ...: one bin for each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    group: str  # input, output, class, embedding: which side of the model it looks at; right: see RIGHT
    kind: str  # quantity or category
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0

    @property
    def digest(self) -> str:
        """Names the bins; counts over other bins are never merged."""
        return sha256(",".join(edge.hex() for edge in self.edges).encode())[:16]


class Baseline(BaseModel):
    """What a release looked like on its reference data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    samples: int
    features: tuple[FeatureBaseline, ...]


def quantile_edges(values: Sequence[float]) -> tuple[float, ...]:
    """Edges of 16 quantile bins and 2 overflow bins; duplicates collapse. One value alone has a bin of its own."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return (0.0,)
    shares = [OVERFLOW_SHARE, *(i / QUANTILE_BINS for i in range(1, QUANTILE_BINS)), 1 - OVERFLOW_SHARE]
    edges = sorted({_quantile(ordered, share) for share in shares})
    return tuple(edges) if len(edges) > 1 else (edges[0], math.nextafter(edges[0], math.inf))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bin_of(edges: Sequence[float], value: float) -> int:
    """Index of the bin that holds `value`: bin i is [edges[i-1], edges[i])."""
    return bisect_right(edges, value)


def count(edges: Sequence[float], values: Iterable[float]) -> tuple[list[int], int]:
    """Counts over the bins, and how many values were not finite."""
    counts, missing = [0] * (len(edges) + 1), 0
    for value in values:
        if math.isfinite(value):
            counts[bin_of(edges, value)] += 1
        else:
            missing += 1
    return counts, missing


def add(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Merge counts over the same bins.

    Raises:
        ValueError: different numbers of bins.
    """
    return [a + b for a, b in zip(left, right, strict=True)]


def latency_bin(milliseconds: float) -> int:
    """Bin of a latency; bin k covers [1.02^k, 1.02^(k+1)) ms."""
    return math.floor(math.log(max(milliseconds, 1e-3)) / _LOG_RATIO)


@dataclass(frozen=True, slots=True)
class Latency:
    """Merged latency bins."""

    bins: Mapping[int, int]

    @property
    def count(self) -> int:
        """Number of requests."""
        return sum(self.bins.values())

    def quantile_ms(self, share: float) -> float | None:
        """The latency below which `share` of the requests lie, within 1 %; None without requests."""
        total, seen = self.count, 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen >= share * total:
                return float(LATENCY_RATIO ** (index + 0.5))
        return None


def merge_latency(many: Iterable[Mapping[int, int]]) -> Latency:
    """All bins added up."""
    merged: dict[int, int] = {}
    for bins in many:
        for index, number in bins.items():
            merged[index] = merged.get(index, 0) + number
    return Latency(merged)
