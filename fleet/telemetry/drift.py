"""Distance between the counts of a window and those of its reference, over the same fixed bins.

a, b = counts of window and reference, n, m = their sums, B = number of bins, s = 1/n + 1/m,
p = (a + 1/2) / (n + B/2), q = (b + 1/2) / (m + B/2)   (Jeffreys: never zero, no cliff).

    psi            sum (p - q) ln(p / q), nats
    psi_corrected  psi - (B - 1) s: free of the bias of small samples; this one is graded
    psi_limit      s * chi2(B - 1) quantile: what chance alone stays below
    kl             sum p ln(p / q), window against reference
    jsd            Jensen-Shannon divergence of the raw shares, nats; js_distance its square root
    ks, ks_p       largest distance of the cumulative shares at the bin edges (Stephens' approximation for p)
    wasserstein    sum |F - G| * width of the bin, in standard deviations of the reference
    chi2, dof, p   two-sample chi-square over the bins that hold anything; p decides whether chance explains it
    shift, spread  components V1 and V2 of chi2, N(0, 1) each: values grew, values spread (`components.py`)
    residual       what they leave of chi2
    psi_lower      one-sided 95 % bound of psi_corrected: psi_c - 1.645 s sqrt(2 (B - 1 + 2 psi_c / s))

All functions take whole matrices, one row for each pair, padded with empty bins at the right.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fleet.telemetry import components
from shared.sketches import FeatureBaseline

Floats = NDArray[np.float64]

#: Rows at a time: what stays in the processor's cache is three times as fast.
BLOCK: Final = 2048
SIGMAS: Final = 1.645  # of the lower bound
_TINY: Final = 1e-300
FIELDS: Final = (
    "psi",
    "psi_corrected",
    "psi_limit",
    "kl",
    "jsd",
    "js_distance",
    "ks",
    "ks_p",
    "wasserstein",
    "chi2",
    "dof",
    "p",
    "shift",
    "spread",
    "residual",
    "psi_lower",
)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything that is known of one pair."""

    samples: int
    reference_samples: int
    psi: float
    psi_corrected: float
    psi_limit: float
    kl: float
    jsd: float
    js_distance: float
    ks: float
    ks_p: float
    wasserstein: float
    chi2: float
    dof: float
    p: float
    shift: float
    spread: float
    residual: float
    psi_lower: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Counts of a window and of its reference over the same bins; `widths` in standard deviations."""

    current: Sequence[int]
    reference: Sequence[int]
    widths: Sequence[float]


def compare(pairs: Sequence[Pair], significance: float) -> tuple[Statistics, ...]:
    """Statistics of every pair, in order. Both sides of a pair must hold samples.

    Raises:
        ValueError: a side without samples, or different numbers of bins.
    """
    if not pairs:
        return ()
    if any(len(pair.current) != len(pair.reference) for pair in pairs):
        raise ValueError("counts over different bins")
    bins = np.array([len(pair.current) for pair in pairs])
    current, reference, widths = (
        _padded(rows, int(bins.max()))
        for rows in (
            [pair.current for pair in pairs],
            [pair.reference for pair in pairs],
            [pair.widths for pair in pairs],
        )
    )
    if not (current.sum(axis=1).all() and reference.sum(axis=1).all()):
        raise ValueError("a side without samples")
    return table(current, reference, widths, bins, significance)


def table(
    current: Floats, reference: Floats, widths: Floats, bins: NDArray[Any], significance: float
) -> tuple[Statistics, ...]:
    """`statistics`, one object for each row."""
    columns = statistics(current, reference, widths, bins, significance)
    rows = np.column_stack([columns[field] for field in FIELDS]).tolist()
    sizes = zip(current.sum(axis=1).tolist(), reference.sum(axis=1).tolist(), strict=True)
    return tuple(Statistics(int(n), int(m), *row) for (n, m), row in zip(sizes, rows, strict=True))


def _padded(rows: Sequence[Sequence[float]], width: int) -> Floats:
    found = np.zeros((len(rows), width))
    for index, row in enumerate(rows):
        found[index, : len(row)] = row
    return found


def statistics(
    current: Floats, reference: Floats, widths: Floats, bins: NDArray[Any], significance: float
) -> dict[str, Floats]:
    """`FIELDS` -> one value for each row. `bins`: how many columns of the row count."""
    blocks = [
        _block(current[rows], reference[rows], widths[rows], bins[rows], significance)
        for rows in (slice(start, start + BLOCK) for start in range(0, len(current), BLOCK))
    ]
    return {field: np.concatenate([block[field] for block in blocks]) for field in FIELDS}


def _block(
    current: Floats, reference: Floats, widths: Floats, bins: NDArray[Any], significance: float
) -> dict[str, Floats]:
    n, m = current.sum(axis=1, keepdims=True), reference.sum(axis=1, keepdims=True)
    s = (1 / n + 1 / m)[:, 0]
    psi, kl = stability(current, reference, bins)
    here, there = current / n, reference / m
    jsd = _jsd(here, there)
    gap = np.abs(np.cumsum(here - there, axis=1))
    if (outside := _outside(current, bins)) is not None:
        gap[outside] = 0.0
    ks = gap.max(axis=1)
    root = np.sqrt((n * m / (n + m))[:, 0])
    parts = components.split(current, reference)
    psi_corrected = psi - (bins - 1) * s
    return {
        "psi": psi,
        "psi_corrected": psi_corrected,
        "psi_limit": s * _quantiles(bins - 1, significance),
        "kl": kl,
        "jsd": jsd,
        "js_distance": np.sqrt(jsd),
        "ks": ks,
        "ks_p": special.kolmogorov((root + 0.12 + 0.11 / root) * ks),
        "wasserstein": np.einsum("ij,ij->i", gap, widths),
        "chi2": parts.chi2,
        "dof": parts.dof,
        "p": np.where(parts.dof > 0, special.chdtrc(np.maximum(parts.dof, 1), parts.chi2), 1.0),
        "shift": parts.v1,
        "spread": parts.v2,
        "residual": parts.residual,
        "psi_lower": lower_bound(psi_corrected, bins, s),
    }


def sizes(current: Floats, reference: Floats, bins: NDArray[Any], significance: float) -> tuple[Floats, Floats]:
    """`psi_corrected` and `psi_limit` of every row and nothing else; both sides must hold samples."""
    s = 1 / current.sum(axis=1) + 1 / reference.sum(axis=1)
    psi, _ = stability(current, reference, bins)
    return psi - (bins - 1) * s, s * _quantiles(bins - 1, significance)


def stability(current: Floats, reference: Floats, bins: NDArray[Any]) -> tuple[Floats, Floats]:
    """PSI and KL of every row, neither corrected."""
    size = bins[:, None].astype(np.float64)
    p = (current + 0.5) / (current.sum(axis=1, keepdims=True) + size / 2)
    q = (reference + 0.5) / (reference.sum(axis=1, keepdims=True) + size / 2)
    log_ratio = np.log(p / q)
    if (outside := _outside(current, bins)) is not None:
        log_ratio[outside] = 0.0
    return np.einsum("ij,ij->i", p - q, log_ratio), np.einsum("ij,ij->i", p, log_ratio)


def _outside(rows: Floats, bins: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where rows are filled up; None, the usual case, where none is."""
    width = rows.shape[1]
    return None if int(bins.min()) >= width else np.arange(width)[None, :] >= bins[:, None]


def lower_bound(psi_corrected: Floats, bins: NDArray[Any], s: Floats) -> Floats:
    """One-sided 95 % bound of the corrected PSI; `s` = 1/n + 1/m, times the dispersion where there is one."""
    inside = 2 * (bins - 1 + 2 * np.maximum(psi_corrected, 0) / s)
    return np.asarray(psi_corrected - SIGMAS * s * np.sqrt(inside))


def _quantiles(dof: NDArray[Any], significance: float) -> Floats:
    """Upper chi-square quantiles; there are few different numbers of bins, and each quantile is slow."""
    different, where = np.unique(dof, return_inverse=True)
    found = np.where(different > 0, special.chdtri(np.maximum(different, 1), significance), 0.0)
    return np.asarray(found[where])


def _jsd(p: Floats, q: Floats) -> Floats:
    """An empty side of a bin adds nothing: its share times a logarithm that is kept finite."""
    middle = np.maximum((p + q) / 2, _TINY)
    both = np.einsum("ij,ij->i", p, np.log(np.maximum(p, _TINY) / middle))
    both += np.einsum("ij,ij->i", q, np.log(np.maximum(q, _TINY) / middle))
    return np.asarray(np.maximum(both, 0) / 2)


def widths(feature: FeatureBaseline) -> tuple[float, ...]:
    """Width of every bin in standard deviations of the reference; classes are one apart and not scaled.

    The outer two bins have no end: they count as wide as a quarter-to-quarter range shared by all bins.
    """
    edges, bins = feature.edges, len(feature.counts)
    if feature.kind == "category" or len(edges) < 2:
        return (1.0,) * bins
    inner = [high - low for low, high in pairwise(edges)]
    counts = np.asarray(feature.counts, dtype=np.float64)
    reached = np.cumsum(counts)[:-1] / max(counts.sum(), 1.0)
    quarter, three = np.interp([0.25, 0.75], reached, edges)
    outer = float(three - quarter) / bins or float(np.mean(inner))
    middles = np.array([edges[0] - outer / 2, *((a + b) / 2 for a, b in pairwise(edges))])
    middles = np.append(middles, edges[-1] + outer / 2)
    shares = counts / max(counts.sum(), 1.0)
    spread = float(np.sqrt((shares * (middles - (shares * middles).sum()) ** 2).sum()))
    return tuple(width / spread if spread > 0 else 0.0 for width in (outer, *inner, outer))
