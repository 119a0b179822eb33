"""Numbers that tell how inputs and answers look, one of each per row of a batch.

Runs inside the inference worker and, at publish, over the reference data, so that both mean the same.
Python 3.10 syntax, numpy only. Source of the choice: no single group sees every fault (docs/drift.md).

    input.brightness, input.contrast, input.sharpness     image-like input (at least 3 dimensions)
    input.saturation                                      where 3 of its planes are colours: mean of highest - lowest
    input.mean, input.spread                              any other numeric input, of the values that are there
    input.missing                                         share of its values that are not
    output.confidence, output.entropy, output.margin      first float output of shape [rows, classes]
    class.predicted                                       its arg max
    output.count, output.area                             of a detector instead: boxes above a score of 0.5, and their
                                                          mean area (missing where there is none)
    embedding.0 ... embedding.7, embedding.rest           an output that the release names, along the axes on which
                                                          the reference data varies most, and how far it lies off them

A detector is known by its shapes: float outputs [rows, n, 4] (two corners) and [rows, n] (scores), or one output
[rows, n, 6] (two corners, score, class). Anything else that finds boxes is measured by its inputs alone.

Of inputs with more than 128 Ki values per row, only evenly spread lines are read, about 64 Ki values: a camera frame
would cost more than its inference.

I/O: none.
"""

from typing import Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np

_IMAGE_DIMENSIONS = 3  # rows, height, width; with channels 4
_COLOURS = 3
_CORNERS = 4
_BOX_SCORE_CLASS = 6
_SCORE = 0.5  # of a box that counts
_TINY = 1e-12
_VALUES = 64 * 1024  # of one row that are read; a larger picture is looked at line by line with gaps, evenly spread

#: Features whose bins are classes, not quantities.
CATEGORIES = frozenset({"class.predicted"})
#: Most axes of a projection, and most values of a row that one takes.
MAX_AXES = 8
MAX_WIDTH = 4096
#: Members of a release's golden file that hold its projection; readers that do not know them take no notice.
MEMBERS = OUTPUT, MEAN, AXES = "embedding.output", "embedding.mean", "embedding.axes"


class Projection(NamedTuple):
    """Made at publish: `output` is a model output [rows, width], `mean` [width], `axes` [axes, width] orthonormal."""

    output: str
    mean: np.ndarray
    axes: np.ndarray


def projection(arrays: Mapping[str, np.ndarray]) -> Optional[Projection]:
    """The projection in a golden file; None where there is none, or none of the promised form."""
    if not all(name in arrays for name in MEMBERS):
        return None
    output, mean, axes = (arrays[name] for name in MEMBERS)
    formed = output.dtype.kind == "U" and output.ndim == 0 and mean.dtype.kind == axes.dtype.kind == "f"
    if not formed or axes.ndim != 2 or mean.shape != axes.shape[1:]:
        return None
    if not 1 <= axes.shape[0] <= MAX_AXES or axes.shape[1] > MAX_WIDTH:
        return None
    return Projection(str(output), mean.astype(np.float32, copy=False), axes.astype(np.float32, copy=False))


def probe(
    inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], along: Optional[Projection] = None
) -> Dict[str, np.ndarray]:
    """Feature name -> float64 array of one value per row. What cannot be computed is left out."""
    found: Dict[str, np.ndarray] = {}
    first = next(iter(inputs.values()), None)
    if first is not None and first.ndim >= 1 and first.dtype.kind in "fiub":
        found.update(_input(first))
    if along is not None:
        found.update(embedded(outputs.get(along.output), along))
    outputs = answers(outputs, along)
    boxes = _boxes(outputs)
    scores = class_scores(outputs)
    if boxes is not None:
        found.update(_detected(*boxes))
    elif scores is not None:
        found.update(_output(scores.astype(np.float64, copy=False)))
    return found


def answers(outputs: Mapping[str, np.ndarray], along: Optional[Projection]) -> Mapping[str, np.ndarray]:
    """Outputs but for the embedding, which might be taken for scores."""
    if along is None:
        return outputs
    return {name: tensor for name, tensor in outputs.items() if name != along.output}


def embedded(tensor: Optional[np.ndarray], along: Projection) -> Dict[str, np.ndarray]:
    """Where each row lies on every axis, and its distance from the space that they span. Not finite: missing."""
    if tensor is None or tensor.ndim != 2 or tensor.dtype.kind != "f" or tensor.shape[1:] != along.mean.shape:
        return {}
    with np.errstate(invalid="ignore", over="ignore"):
        centred = tensor.astype(np.float32, copy=False) - along.mean
        places = (centred @ along.axes.T).astype(np.float64)
        length = np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
        rest = np.sqrt(np.maximum(length - np.einsum("ij,ij->i", places, places), 0.0))
    found = {f"embedding.{number}": places[:, number] for number in range(len(along.axes))}
    if len(along.axes) < len(along.mean):
        found["embedding.rest"] = rest
    return found


def class_scores(outputs: Mapping[str, np.ndarray]) -> Optional[np.ndarray]:
    """The first float output of shape [rows, classes]; None for a detector, whose scores are of boxes."""
    if _boxes(outputs) is not None:
        return None
    for tensor in outputs.values():
        if tensor.ndim == 2 and tensor.dtype.kind == "f" and tensor.shape[1] > 1:
            return tensor
    return None


def _boxes(outputs: Mapping[str, np.ndarray]) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Corners [rows, n, 4] and scores [rows, n] of a detector."""
    floats = [tensor for tensor in outputs.values() if tensor.dtype.kind == "f"]
    for tensor in floats:
        if tensor.ndim == 3 and tensor.shape[2] == _BOX_SCORE_CLASS:
            return tensor[:, :, :_CORNERS], tensor[:, :, _CORNERS]
        if tensor.ndim == 3 and tensor.shape[2] == _CORNERS:
            for other in floats:
                if other.shape == tensor.shape[:2]:
                    return tensor, other
    return None


def _detected(corners: np.ndarray, scores: np.ndarray) -> Dict[str, np.ndarray]:
    good = scores > _SCORE
    count = good.sum(axis=1).astype(np.float64)
    sides = corners[:, :, 2:].astype(np.float64) - corners[:, :, :2]
    total = np.where(good, np.abs(sides[:, :, 0] * sides[:, :, 1]), 0.0).sum(axis=1)
    area = np.full(len(count), np.nan)
    np.divide(total, count, out=area, where=count > 0)
    return {"output.count": count, "output.area": area}


def _input(tensor: np.ndarray) -> Dict[str, np.ndarray]:
    tensor = sparse(tensor)
    rows = tensor.reshape(tensor.shape[0], -1).astype(np.float64, copy=False)
    if rows.shape[1] == 0:
        return {}
    if tensor.ndim < _IMAGE_DIMENSIONS:
        return _plain(rows)
    image = tensor.astype(np.float64, copy=False)
    sharpness = (
        np.abs(np.diff(image, axis=-1)).reshape(len(rows), -1).mean(axis=1) if image.shape[-1] > 1 else rows[:, 0]
    )
    found = {"input.brightness": rows.mean(axis=1), "input.contrast": rows.std(axis=1), "input.sharpness": sharpness}
    colours = _colours(image)
    if colours is not None:
        found["input.saturation"] = colours
    return found


def _colours(image: np.ndarray) -> Optional[np.ndarray]:
    """Mean distance of the highest from the lowest of three colours; None where there are not three."""
    if image.ndim != _IMAGE_DIMENSIONS + 1 or _COLOURS not in (image.shape[1], image.shape[3]):
        return None
    first, second, third = np.moveaxis(image, 1 if image.shape[1] == _COLOURS else 3, 0)
    high = np.maximum(np.maximum(first, second), third)
    low = np.minimum(np.minimum(first, second), third)
    chroma: np.ndarray = (high - low).reshape(len(image), -1).mean(axis=1)
    return chroma


def _plain(rows: np.ndarray) -> Dict[str, np.ndarray]:
    there = np.isfinite(rows)
    if there.all():
        return {"input.mean": rows.mean(axis=1), "input.spread": rows.std(axis=1), "input.missing": np.zeros(len(rows))}
    count = there.sum(axis=1)
    kept = np.where(there, rows, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a row without a value has no mean
        mean = kept.sum(axis=1) / count
        spread = np.sqrt((np.where(there, rows - mean[:, None], 0.0) ** 2).sum(axis=1) / count)
    return {"input.mean": mean, "input.spread": spread, "input.missing": 1 - count / rows.shape[1]}


def sparse(tensor: np.ndarray) -> np.ndarray:
    """Every k-th line of a large picture (neighbours within a line remain), every k-th value of a large vector.

    A tensor that went through here stays as it is.
    """
    size = tensor.size // max(len(tensor), 1) if tensor.ndim else 1
    if size <= 2 * _VALUES:
        return tensor
    step = -(-size // _VALUES)
    return tensor[:, ::step] if tensor.ndim < _IMAGE_DIMENSIONS else tensor[..., ::step, :]


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
