"""Numbers that tell how inputs and answers look, one of each per row of a batch.

Runs inside the inference worker and, at publish, over the reference data, so that both mean the same.
Python 3.10 syntax, numpy only. Source of the choice: no single group sees every fault (docs/drift.md).

    input.brightness, input.contrast, input.sharpness     image-like input (at least 3 dimensions)
    input.mean, input.spread                              any other numeric input
    output.confidence, output.entropy, output.margin      first float output of shape [rows, classes]
    class.predicted                                       its arg max

Of inputs with more than 128 Ki values per row, only evenly spread lines are read, about 64 Ki values: a camera frame
would cost more than its inference.

I/O: none.
"""

from typing import Dict, Mapping, Optional

import numpy as np

_IMAGE_DIMENSIONS = 3  # rows, height, width; with channels 4
_TINY = 1e-12
_VALUES = 64 * 1024  # of one row that are read; a larger picture is looked at line by line with gaps, evenly spread

#: Features whose bins are classes, not quantities.
CATEGORIES = frozenset({"class.predicted"})


def probe(inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Feature name -> float64 array of one value per row. What cannot be computed is left out."""
    found: Dict[str, np.ndarray] = {}
    first = next(iter(inputs.values()), None)
    if first is not None and first.ndim >= 1 and first.dtype.kind in "fiub":
        found.update(_input(first))
    scores = _scores(outputs)
    if scores is not None:
        found.update(_output(scores))
    return found


def _input(tensor: np.ndarray) -> Dict[str, np.ndarray]:
    tensor = sparse(tensor)
    rows = tensor.reshape(tensor.shape[0], -1).astype(np.float64, copy=False)
    if rows.shape[1] == 0:
        return {}
    if tensor.ndim < _IMAGE_DIMENSIONS:
        return {"input.mean": rows.mean(axis=1), "input.spread": rows.std(axis=1)}
    image = tensor.astype(np.float64, copy=False)
    sharpness = (
        np.abs(np.diff(image, axis=-1)).reshape(len(rows), -1).mean(axis=1) if image.shape[-1] > 1 else rows[:, 0]
    )
    return {"input.brightness": rows.mean(axis=1), "input.contrast": rows.std(axis=1), "input.sharpness": sharpness}


def sparse(tensor: np.ndarray) -> np.ndarray:
    """Every k-th line of a large picture (neighbours within a line remain), every k-th value of a large vector.

    A tensor that went through here stays as it is.
    """
    size = tensor.size // max(len(tensor), 1) if tensor.ndim else 1
    if size <= 2 * _VALUES:
        return tensor
    step = -(-size // _VALUES)
    return tensor[:, ::step] if tensor.ndim < _IMAGE_DIMENSIONS else tensor[..., ::step, :]


def _scores(outputs: Mapping[str, np.ndarray]) -> Optional[np.ndarray]:
    for tensor in outputs.values():
        if tensor.ndim == 2 and tensor.dtype.kind == "f" and tensor.shape[1] > 1:
            return tensor.astype(np.float64, copy=False)
    return None


def _output(scores: np.ndarray) -> Dict[str, np.ndarray]:
    if scores.min(initial=0.0) < 0.0 or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-2):
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))  # logits: soft-max first
        scores = shifted / shifted.sum(axis=1, keepdims=True)
    ordered = np.sort(scores, axis=1)
    return {
        "output.confidence": ordered[:, -1],
        "output.margin": ordered[:, -1] - ordered[:, -2],
        "output.entropy": -(scores * np.log(scores + _TINY)).sum(axis=1),
        "class.predicted": np.argmax(scores, axis=1).astype(np.float64),
    }
