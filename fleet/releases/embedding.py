"""The projection of an embedding: the axes along which the reference data varies most, for features of few numbers.

    checked   one batch of the named output, or why it cannot be an embedding
    fitted    its principal axes, at most eight, and where their centre is
    members   what the golden file of the release holds of them (ADR 22)

The same rows give the same axes to the bit on one machine; nobody else computes them anew.

I/O: none.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.releases.errors import EmbeddingError
from shared.probes import AXES, MAX_AXES, MAX_WIDTH, MEAN, OUTPUT, Projection

Floats = NDArray[np.floating[Any]]
#: An axis with less than this share of the variance along the first one is rounding.
_NOTHING: Final = 1e-10


def checked(name: str, outputs: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float32]:
    """The output called `name` of one batch of `rows` rows.

    Raises:
        EmbeddingError: there is none, or it is not one row of finite values for each row of input.
    """
    if name not in outputs:
        raise EmbeddingError(f"the model has no output {name!r}; it has {', '.join(sorted(outputs))}")
    found = outputs[name]
    if found.dtype.kind != "f" or found.ndim != 2 or len(found) != rows:
        raise EmbeddingError(
            f"output {name!r} is {found.dtype} of shape {list(found.shape)} for {rows} rows; an embedding is "
            "[rows, values] of floats"
        )
    if not 1 <= found.shape[1] <= MAX_WIDTH:
        raise EmbeddingError(f"output {name!r} has {found.shape[1]} values for each row; 1 to {MAX_WIDTH} can be used")
    if not np.isfinite(found).all():
        raise EmbeddingError(f"output {name!r} holds NaN or infinity on the reference data")
    return np.asarray(found, np.float32)


def fitted(name: str, values: NDArray[np.float32]) -> Projection:
    """The principal axes of `values` [rows, width], each with its largest member above zero.

    Raises:
        EmbeddingError: every row is the same, or values are beyond what 32 bits can project.
    """
    mean = values.mean(axis=0, dtype=np.float64)
    centred = values - mean
    spread = centred.T @ centred
    if not np.isfinite(spread).all():
        raise EmbeddingError(f"output {name!r} holds values that are too large to be projected")
    variances, vectors = np.linalg.eigh(spread)
    order = np.argsort(variances)[::-1][:MAX_AXES]
    kept = order[variances[order] > max(float(variances[order[0]]) * _NOTHING, 0.0)]
    if not len(kept) or not (values != values[0]).any():
        raise EmbeddingError(f"output {name!r} is the same for every row of the reference data")
    axes = vectors[:, kept].T
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return Projection(name, mean.astype(np.float32), (axes * signs[:, None]).astype(np.float32))


def members(along: Projection) -> Mapping[str, NDArray[Any]]:
    """Arrays for the golden file, as `shared.probes.projection` reads them."""
    return {OUTPUT: np.array(along.output), MEAN: along.mean, AXES: along.axes}
