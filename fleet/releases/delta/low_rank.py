"""The change of a matrix as a product of two thin ones: what an adapter leaves behind that was merged.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from shared.delta.numbers import Array

_TRIED: Final = 32  # ranks
_MORE: Final = 8  # directions beside, for the accuracy of the last one
_TAIL: Final = 0.02  # of the squared change that may be left over
_ROUNDS: Final = 4
_SEEN: Final = 96  # rows and columns of the first look
_LEAST: Final = 24  # rows and columns


def factors(change: Array, spacing: Array) -> tuple[Array, Array] | None:
    """float32 matrices (rows x rank, rank x columns) whose product is about `change`; None when no such are.

    `spacing` is the distance of representable numbers at each element: where it is small, more is asked for.
    """
    rows, columns = change.shape
    total = float(np.sum(change * change))
    if min(rows, columns) < _LEAST or not np.isfinite(total) or total == 0:
        return None
    if not _hopeful(change):
        return None
    chance = np.random.default_rng(0)  # the same directions every time
    width = min(_TRIED + _MORE, rows, columns)
    basis, _ = np.linalg.qr(change @ chance.standard_normal((columns, width)))
    basis, _ = np.linalg.qr(change @ (change.T @ basis))
    inner, sizes, outer = np.linalg.svd(basis.T @ change, full_matrices=False)
    if total - float(np.sum(sizes**2)) > _TAIL * total:
        return None
    rank = _rank(sizes[:_TRIED])
    left, right = (basis @ inner[:, :rank]) * np.sqrt(sizes[:rank]), np.sqrt(sizes[:rank])[:, None] * outer[:rank]
    left, right = _refined(change, 1.0 / np.square(spacing), left, right)
    return left.astype(np.float32), right.astype(np.float32)


def _hopeful(change: Array) -> bool:
    """Whether rows and columns here and there look like a product; most changes do not, and this is cheap."""
    part = change[:: max(1, len(change) // _SEEN), :: max(1, change.shape[1] // _SEEN)]
    sizes = np.linalg.svd(part, compute_uv=False)
    return float(np.sum(sizes[_TRIED:] ** 2)) <= 2 * _TAIL * float(np.sum(sizes**2))


def _rank(sizes: Array) -> int:
    """Where the singular values fall off the most."""
    floor = sizes[0] * 1e-9 + 1e-300
    ratios = (sizes[:-1] + floor) / (sizes[1:] + floor)
    return int(np.argmax(ratios)) + 1


def _refined(change: Array, weight: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """Alternating least squares, each element weighted by the precision it is known with."""
    scale = weight / np.mean(weight)
    for _ in range(_ROUNDS):
        left = _solved(change, scale, right)
        right = _solved(change.T, scale.T, left.T).T
    balance = np.sqrt(np.linalg.norm(right, axis=1) / np.maximum(np.linalg.norm(left, axis=0), 1e-300))
    return left * balance, right / np.maximum(balance, 1e-300)[:, None]


def _solved(change: Array, weight: Array, right: Array) -> Array:
    """For each row r: the x for which x @ right is nearest to the row, by weight."""
    rank, columns = right.shape
    squares = (right[:, None, :] * right[None, :, :]).reshape(rank * rank, columns)
    normal = (weight @ squares.T).reshape(-1, rank, rank)
    trace = np.trace(normal, axis1=1, axis2=2) / rank
    normal = normal + (trace * 1e-12 + 1e-300)[:, None, None] * np.eye(rank)
    aim = (weight * change) @ right.T
    found: Array = np.linalg.solve(normal, aim[:, :, None])[:, :, 0]
    return found
