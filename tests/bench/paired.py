"""Two things measured in turns, in short blocks: how much longer one takes, and how sure that is.

What disturbs the machine meets both blocks of a pair. Lives (a fresh pair of processes each) and the pairs in them are
drawn anew again and again (a bootstrap in two steps), so that the luck of one process or of one second counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.bench import load

RESAMPLES = 2000
SURE = 95.0  # percent of the resamples lie between the bounds

Pair = tuple[np.ndarray, np.ndarray]  # latencies of the one and of the other


@dataclass(frozen=True, slots=True)
class Excess:
    """Percent by which a percentile of the one is above that of the other."""

    low: float
    value: float
    high: float


def excess(lives: Sequence[Sequence[Pair]], share: float, *, seed: int = 1) -> Excess:
    """Of the percentile `share` over all requests of both."""
    rng = np.random.default_rng(seed)
    found = [
        _excess(
            [life[place] for life in _drawn(rng, lives) for place in rng.integers(len(life), size=len(life))], share
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(found, [50 - SURE / 2, 50 + SURE / 2])
    return Excess(float(low), _excess([pair for life in lives for pair in life], share), float(high))


def _drawn(rng: np.random.Generator, lives: Sequence[Sequence[Pair]]) -> list[Sequence[Pair]]:
    return [lives[place] for place in rng.integers(len(lives), size=len(lives))]


def _excess(pairs: Sequence[Pair], share: float) -> float:
    one, other = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return 100 * (load.percentile(one, share) / load.percentile(other, share) - 1)
