"""Does the new version cause more of something than the version before, at the same time, elsewhere?

Of `x_c + x_k` events of one interval, the candidate's devices would have the share `s` of all by what these devices
did before (`habits`). If they have more, that is evidence; it is added up interval by interval, so that looking often
costs nothing (an e-process; Ville's inequality bounds the false alarms of all looks together):

    p(r)      = r s / (1 + (r - 1) s)                                share if the candidate's rate is r times as high
    log E_r  += [x_c ln(p(r t) / p(t)) + x_k ln((1 - p(r t)) / (1 - p(t)))] / phi         t = 1 + tolerance
    E         = mean of E_r over `ratios`;  alarm as soon as E >= 1 / level

phi is how much more the events vary than independent ones would (bursts). Source: the multinomial test of Lindon and
Malek (arXiv 2011.03567), with shares by history and phi. ADR 24, docs/gates.md.

All functions take arrays: leading axes are tests (or devices, or simulated rollouts), the last one is `ratios`.

I/O: none.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: How many times as high as tolerated: what is looked for. What stands twice weighs twice: it takes longest to find.
RATIOS: Final = (1.25, 1.5, 1.5, 2.0, 2.0, 3.0, 5.0, 10.0)
#: Of frequent events: small changes are told soon.
FREQUENT_RATIOS: Final = (1.25, 1.25, 1.5, 2.0, 4.0)
#: Of rare events that mean much each.
RARE_RATIOS: Final = (2.0, 5.0, 10.0, 30.0, 100.0)


def tilted(share: ArrayLike, ratio: ArrayLike) -> Floats:
    """The candidate's share of events if its rate is `ratio` times as high as its history says."""
    s, r = np.asarray(share, dtype=float), np.asarray(ratio, dtype=float)
    share_then: Floats = r * s / (1 + (r - 1) * s)
    return share_then


def gains(  # the six numbers of the formula above
    candidate: ArrayLike,
    control: ArrayLike,
    share: ArrayLike,
    *,
    tolerance: float,
    ratios: Sequence[float] = RATIOS,
    dispersion: ArrayLike = 1.0,
) -> Floats:
    """What one interval adds to log E_r. Without a control (`share` 0 or 1) nothing can be told, and nothing is added.

    Raises:
        ValueError: a negative count, a share outside 0 to 1, or a dispersion below 1.
    """
    x, k, s, phi = (np.asarray(it, dtype=float)[..., None] for it in (candidate, control, share, dispersion))
    if (x < 0).any() or (k < 0).any() or (s < 0).any() or (s > 1).any() or (phi < 1).any():
        raise ValueError("counts from 0, shares of 0 to 1 and a dispersion from 1 are needed")
    told = (s > 0) & (s < 1)
    safe = np.where(told, s, 0.5)
    even = tilted(safe, 1 + tolerance)
    more = tilted(safe, (1 + tolerance) * np.asarray(ratios, dtype=float))
    found = (x * np.log(more / even) + k * np.log((1 - more) / (1 - even))) / phi
    return np.where(told, found, 0.0)


def evidence(logs: ArrayLike) -> Floats:
    """log E of each test from its log E_r."""
    found = np.asarray(logs, dtype=float)
    top = found.max(axis=-1)
    mean: Floats = top + np.log(np.exp(found - top[..., None]).mean(axis=-1))
    return mean


def against(bad: int, ended: int, usual: float, *, ratios: Sequence[float] = RARE_RATIOS) -> float:
    """log E that more than the `usual` share ends badly: there is no control for that, only experience.

    Independent trials: only the sums count, so that this is an e-process over `ended`.

    Raises:
        ValueError: more bad ones than ended, or `usual` is not between 0 and 1.
    """
    if not 0 <= bad <= ended or not 0 < usual < 1:
        raise ValueError(f"{bad} of {ended} against {usual}")
    share = tilted(usual, np.asarray(ratios, dtype=float))
    logs = bad * np.log(share / usual) + (ended - bad) * np.log((1 - share) / (1 - usual))
    return float(evidence(logs))


def chance(log_e: float) -> float:
    """The p that holds at every look: 1 / E, at most 1."""
    return math.exp(-max(0.0, log_e))


def e_value(log_e: float) -> float:
    """E itself, cut where a float ends."""
    return math.exp(min(700.0, log_e))
