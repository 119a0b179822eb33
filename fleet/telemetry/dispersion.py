"""How much more a device's ordinary days differ from each other than independent samples would.

Frames of a video are not independent, and no two days have the same weather. For each of a device's first days, the
day is compared with the other days of the same device: without dependence V_k^2 has the mean 1. What it has instead,
phi_k = max(1, mean over days and devices), divides V_k^2 ever after (docs/drift.md).

    phi of a row = max(fleet, (12 fleet + 6 own) / 18): what is known of one device alone is little
    residual     = Satterthwaite: R / g is chi-square with nu, g = max(1, var / (2 mean)), nu = mean / g

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.telemetry import components
from fleet.telemetry.layout import Layout

Floats = NDArray[np.float64]

#: Days with less say nothing.
DAY_SAMPLES: Final = 20
#: Days, of all devices together, from which on the dispersion is believed, and the one of the residual as well.
FEW_DAYS: Final = 3
RESIDUAL_DAYS: Final = 20
_FLEET, _OWN = 12.0, 6.0


@dataclass(frozen=True, slots=True)
class Dispersion:
    """One value for each row and feature; ones (and no degrees of freedom: the nominal ones) when nothing is known."""

    first: Floats  # phi_1
    second: Floats  # phi_2
    residual: Floats  # g
    freedom: Floats  # nu; zero: the nominal one
    tails: Floats  # [rows, features, tails]

    @classmethod
    def none(cls, rows: int, features: int) -> "Dispersion":
        """Nothing is known yet."""
        one = np.ones((rows, features))
        tails = np.ones((rows, features, 3))
        return cls(one, one, one, np.zeros((rows, features)), tails)

    def mean(self, bins: NDArray[np.int64]) -> Floats:
        """By how much PSI is larger for it: the mean over the B - 1 components."""
        rest = np.maximum(bins - 3.0, 0.0)
        shape = np.where(self.freedom > 0, self.residual * self.freedom, rest)
        shape = np.maximum(shape, rest)
        return np.asarray((self.first + self.second + shape) / np.maximum(bins - 1.0, 2.0))

    def of(self, rows: NDArray[np.int64]) -> "Dispersion":
        """These rows only."""
        return Dispersion(
            self.first[rows], self.second[rows], self.residual[rows], self.freedom[rows], self.tails[rows]
        )


def learn(
    days: NDArray[np.int64], layout: Layout, *, believed: NDArray[np.bool_], devices: NDArray[np.bool_]
) -> Dispersion:
    """From the first days [rows, days, vector]. The fleet's part is the mean over the rows that are `devices`.

    `believed` [rows, features] leaves out what drifted on those days.
    """
    rows, number, _ = days.shape
    features = len(layout.names)
    total = days.sum(axis=1)
    squares = np.full((5, rows, number, features), np.nan)
    residual = np.full((rows, number, features), np.nan)
    for day in range(number):
        one, rest = layout.cells.sums(days[:, day]), layout.cells.sums(total - days[:, day])
        found = components.split(one.reshape(rows * features, -1), rest.reshape(rows * features, -1))
        enough = (found.samples >= DAY_SAMPLES) & (found.reference >= DAY_SAMPLES)
        enough &= believed.reshape(-1)
        squares[0, :, day] = np.where(enough, found.v1**2, np.nan).reshape(rows, features)
        squares[1, :, day] = np.where(enough, found.v2**2, np.nan).reshape(rows, features)
        residual[:, day] = np.where(enough, found.residual, np.nan).reshape(rows, features)
        tails = _tail_squares(days[:, day], total, layout)
        squares[2:, :, day] = np.where(enough.reshape(rows, features), np.moveaxis(tails, 2, 0), np.nan)
    phi = np.stack([_shrunk(square, devices) for square in squares])
    g, freedom = _satterthwaite(residual, devices)
    return Dispersion(phi[0], phi[1], g, freedom, np.moveaxis(phi[2:], 0, 2))


def _tail_squares(day: NDArray[np.int64], total: NDArray[np.int64], layout: Layout) -> Floats:
    """Squared surprise of the tails of one day, given how many samples of all days lie there."""
    here, everywhere = layout.tails.sums(day), layout.tails.sums(total)
    n, all_ = layout.bins.sums(day).sum(axis=2)[..., None], layout.bins.sums(total).sum(axis=2)[..., None]
    share = np.divide(n, all_, out=np.zeros_like(n), where=all_ > 0)
    variance = everywhere * share * (1 - share)
    found = np.full_like(here, np.nan)
    return np.asarray(np.divide((here - everywhere * share) ** 2, variance, out=found, where=variance > 0))


def _mean(values: Floats, axes: tuple[int, ...]) -> tuple[Floats, Floats]:
    known = ~np.isnan(values)
    number = known.sum(axis=axes).astype(np.float64)
    total = np.where(known, values, 0.0).sum(axis=axes)
    return np.divide(total, number, out=np.ones_like(total), where=number > 0), number


def _shrunk(squares: Floats, devices: NDArray[np.bool_]) -> Floats:
    """[rows, days, features] -> phi [rows, features]."""
    mean, number = _mean(squares[devices], (0, 1))
    fleet = np.where(number >= FEW_DAYS, np.maximum(mean, 1.0), 1.0)
    own, days = _mean(squares, (1,))
    own = np.where(days >= FEW_DAYS, own, fleet)
    return np.asarray(np.maximum(fleet, (_FLEET * fleet + _OWN * own) / (_FLEET + _OWN)))


def _satterthwaite(residual: Floats, devices: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    mean, number = _mean(residual[devices], (0, 1))
    square, _ = _mean((residual[devices] - mean) ** 2, (0, 1))
    variance = square * np.divide(number, number - 1, out=np.ones_like(number), where=number > 1)
    known = (number >= RESIDUAL_DAYS) & (mean > 0)
    g = np.where(known, np.maximum(1.0, variance / np.maximum(2 * mean, 1e-12)), 1.0)
    own, days = _mean(residual, (1,))
    ratio = np.where((days >= FEW_DAYS) & known, own / np.maximum(mean, 1e-12), 1.0)
    scale = np.maximum(1.0, (_FLEET + _OWN * ratio) / (_FLEET + _OWN))
    freedom = np.broadcast_to(np.where(known, mean / g, 0.0), scale.shape)
    return np.asarray(g * scale), np.asarray(freedom)
