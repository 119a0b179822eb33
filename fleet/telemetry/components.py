"""What kind of difference lies between two rows of counts: moved, spread, of another shape, beyond the edges.

    v1, v2     location and scale: V_k = sqrt(nm / (n + m)) sum (a/n - b/m) g_k, each N(0, 1) without a difference;
               g_k is the k-th polynomial of the pooled mid-ranks that is orthonormal under the pooled shares
    chi2, dof  two-sample chi-square over the bins that hold anything
    residual   chi2 - v1^2 - v2^2: everything else, chi-square with dof - 2
    tail       exact: how often chance puts so many of the a + b samples of an outer bin into the window

The sum of all V_k^2 is chi2; V1^2 (N - 1) / N is the H of Kruskal and Wallis (docs/drift.md).

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

#: Rows at a time: what stays in the processor's cache is several times as fast.
BLOCK: Final = 4096
#: A polynomial whose square under the pooled shares is smaller than this is none: too few bins hold anything.
_NOTHING: Final = 1e-12
_TINY: Final = 1e-300
#: Dispersion that is as good as none.
_INDEPENDENT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Components:
    """One value for each row of counts."""

    samples: Floats
    reference: Floats
    v1: Floats
    v2: Floats
    chi2: Floats
    dof: Floats

    @property
    def residual(self) -> Floats:
        """What location and scale leave over; never below zero."""
        return np.maximum(self.chi2 - self.v1**2 - self.v2**2, 0.0)

    @property
    def effective(self) -> Floats:
        """nm / (n + m): the sample size of the comparison; V_k / sqrt(effective) is the size of the change."""
        total = np.maximum(self.samples + self.reference, 1)
        return self.samples * self.reference / total


def split(current: Floats, reference: Floats) -> Components:
    """Components of every row; a row with an empty side has none: zeros."""
    blocks = [
        _split(current[rows], reference[rows])
        for rows in (slice(start, start + BLOCK) for start in range(0, len(current), BLOCK))
    ]
    if not blocks:
        return Components(*(np.zeros(0) for _ in range(6)))
    return Components(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def _split(current: Floats, reference: Floats) -> tuple[Floats, ...]:
    n, m = current.sum(axis=1), reference.sum(axis=1)
    total = current + reference
    scale = np.where((n > 0) & (m > 0), 1.0, 0.0)
    safe_n, safe_m = np.maximum(n, 1)[:, None], np.maximum(m, 1)[:, None]
    shares = total / np.maximum(n + m, 1)[:, None]
    apart = current / safe_n - reference / safe_m
    factor = np.sqrt(n * m / np.maximum(n + m, 1)) * scale
    held = total > 0
    ratio = apart / np.maximum(shares, _TINY)  # where nothing is held, nothing is apart
    chi2 = np.einsum("ij,ij->i", apart, ratio) * factor**2
    v1, v2 = _two(apart, shares)
    return (
        n,
        m,
        v1 * factor,
        v2 * factor,
        chi2,
        np.maximum(held.sum(axis=1) - 1.0, 0.0) * scale,
    )


def _two(apart: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Sums of `apart` times the first two of `polynomials`, in closed form and without building these.

    Mid-ranks less a half have the mean 0 under the shares; `second` is their square less what 1 and they explain.
    """
    centred = np.cumsum(shares, axis=1)
    centred -= shares / 2 + 0.5
    weighted = centred * shares
    variance = np.einsum("ij,ij->i", centred, weighted)
    second = centred * centred
    skew = np.einsum("ij,ij->i", second, weighted) * _inverse(variance)
    second -= variance[:, None]
    second -= skew[:, None] * centred
    np.multiply(second, shares, out=weighted)
    rest = np.einsum("ij,ij->i", second, weighted)
    return (
        np.einsum("ij,ij->i", apart, centred) * np.sqrt(_inverse(variance)),
        np.einsum("ij,ij->i", apart, second) * np.sqrt(_inverse(rest)),
    )


def _inverse(norm: Floats) -> Floats:
    return np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > _NOTHING)


def polynomials(shares: Floats, degree: int) -> tuple[Floats, ...]:
    """g_1 ... g_degree of one row of pooled shares, by Gram and Schmidt, twice for accuracy."""
    rank = np.cumsum(shares) - shares / 2 - 0.5
    found = [np.ones_like(shares)]
    for _ in range(degree):
        grown = found[-1] * rank
        for _ in range(2):
            for before in found:
                grown = grown - (grown * before * shares).sum() * before
        found.append(grown / np.sqrt((grown**2 * shares).sum()))
    return tuple(found[1:])


def tail(current: Floats, reference: Floats, n: Floats, m: Floats, dispersion: Floats) -> Floats:
    """P(chance puts `current` or more of current + reference into the window): binomial with n / (n + m).

    Counts that come in clusters (`dispersion` above 1) weigh less: negative binomial with that dispersion, whose tail
    is that of clusters and not that of single samples.
    """
    one = np.maximum(current, 1)
    exact = special.betainc(one, reference + 1, n / np.maximum(n + m, 1))
    clustered = dispersion > 1 + _INDEPENDENT
    if clustered.any():
        more = np.where(clustered, dispersion - 1, 1.0)
        expected = (reference + 1) * n / np.maximum(m, 1)
        exact = np.where(clustered, np.maximum(exact, special.betainc(one, expected / more, more / (1 + more))), exact)
    return np.where(current > 0, exact, 1.0)
