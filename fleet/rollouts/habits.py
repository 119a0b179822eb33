"""What each device does on an ordinary day: how often each kind of event, and how unevenly.

    rate_d = (1 + events_d) / (1 / usual + exposure_d)        of the days before the rollout; `usual` over all devices
    phi    = sum (x - mu)^2 / sum mu                          over devices and hours; mu = exposure rate_d f_hour

The 1 keeps a device that never failed from counting as one that cannot fail. `f_hour` takes out what happens to all
devices at once (day and night, a server that fails): both sides of the comparison have that. Study: ADR 24.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Of results: those above the device's own 90th percentile are slow ones.
SLOW_QUANTILE: Final = 0.9
#: More restarts than this in the days before: the device loops anyway, and proves nothing.
LOOPED: Final = 5
HOURS_A_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Spread:
    """Unevenness of each device: sums of which `dispersion` takes the quotient."""

    squares: Floats  # of what the hours differ from what was expected, with what the estimate took out put back
    expected: Floats


def usual(events: Floats, exposure: Floats) -> float:
    """Events for each unit of exposure over all devices; never 0."""
    return float((events.sum() + 1) / (exposure.sum() + 1))


def rates(events: Floats, exposure: Floats, overall: float) -> Floats:
    """Events for each unit of exposure of each device."""
    return (1 + events) / (1 / overall + exposure)


def spread(events: Floats, exposure: Floats, *, daily: bool = False) -> Spread:
    """From [devices, hours]. With `daily`, what lasts the whole day on one device does not count as uneven.

    Latency has such days; that they end no rollout is the doing of the tolerance, not of phi.
    """
    devices, hours = events.shape
    blocks = max(1, hours // HOURS_A_DAY) if daily else 1
    squares, expected = np.zeros(devices), np.zeros(devices)
    for part in np.array_split(np.arange(hours), blocks):
        x, n = events[:, part], exposure[:, part]
        own = x.sum(axis=1) / np.maximum(n.sum(axis=1), 1e-12)
        mean = n * own[:, None]
        both = x.sum(axis=0) / np.maximum(mean.sum(axis=0), 1e-12)
        mean = mean * both
        scale = np.maximum(mean.sum(axis=1), 1e-12) / np.maximum(x.sum(axis=1), 1e-12)
        mean = mean / scale[:, None]
        filled = (n > 0).sum(axis=1)
        enough = filled > 1
        left = np.where(enough, filled / np.maximum(filled - 1, 1), 0.0)
        squares += ((x - mean) ** 2).sum(axis=1) * left
        expected += np.where(enough, mean.sum(axis=1), 0.0)
    return Spread(squares, expected)


def dispersion(squares: float, expected: float) -> float:
    """phi, at least 1; 1 without any events to learn from."""
    return max(1.0, squares / expected) if expected > 0 else 1.0


def slow_bins(places: NDArray[np.int64], counts: Floats) -> NDArray[np.int64]:
    """The last latency bin up to its 90th percentile for each device, from [devices, bins]; -1 without results.

    `places` are the numbers of the bins, ascending. Results in later bins are slow ones.
    """
    total = counts.sum(axis=1)
    below = np.cumsum(counts, axis=1)
    reached = below >= SLOW_QUANTILE * total[:, None]
    return np.where(total > 0, places[reached.argmax(axis=1)], -1)
