"""Read `--reference data.npz`: one array per model input, and optional labels `y`.

I/O: none.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.manifest import Tensor

LABELS: Final = "y"
_DTYPES: Final = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


class ReferenceDataError(RefusedError):
    """The reference data does not fit the model."""

    code = "E_REFERENCE"
    default_remedy = "np.savez('data.npz', INPUT_NAME=array_of_rows, y=labels)"


def read_reference(data: bytes, inputs: Sequence[Tensor]) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any] | None]:
    """Arrays by input name, each of the model's type and all with the same number of rows; labels if there are any.

    Raises:
        ReferenceDataError: not an .npz, or arrays that the model does not take.
    """
    arrays = _arrays(data)
    names = {tensor.name for tensor in inputs}
    labels = arrays.pop(LABELS, None) if LABELS not in names else None
    if len(inputs) == 1 and inputs[0].name not in arrays and set(arrays) == {"x"}:
        arrays = {inputs[0].name: arrays["x"]}
    if arrays.keys() != names:
        raise ReferenceDataError(
            f"the model takes {_listed(names)}; the file holds {_listed(arrays)}",
            remedy=f"np.savez('data.npz', {', '.join(f'{name}=...' for name in sorted(names))}, y=labels)",
        )
    found = {tensor.name: _fitted(tensor, arrays[tensor.name]) for tensor in inputs}
    rows = {len(array) for array in found.values()} | ({len(labels)} if labels is not None and labels.ndim else set())
    if len(rows) != 1 or rows == {0}:
        raise ReferenceDataError(f"arrays with different numbers of rows, or none: {_listed(rows)}")
    if labels is not None and labels.ndim != 1:
        raise ReferenceDataError("labels `y` must be one class index for each row")
    batch = [tensor.shape[0] for tensor in inputs if tensor.shape[0] > 0]
    if batch and min(rows) < batch[0]:
        raise ReferenceDataError(f"the model takes batches of {batch[0]} rows; the file holds {min(rows)}")
    return found, labels


def made_up(inputs: Sequence[Tensor], rows: int) -> Mapping[str, NDArray[Any]]:
    """Rows for a self-test where there is no reference data: always the same, floats in [0, 1), integers 0 or 1.

    Raises:
        ReferenceDataError: a model whose rows have free dimensions: what fits is not known.
    """
    generator = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for tensor in inputs:
        if tensor.datatype not in _DTYPES or not tensor.shape or any(size < 1 for size in tensor.shape[1:]):
            raise ReferenceDataError(
                f"input {tensor.name!r} takes rows of no fixed shape, so none can be made up",
                remedy="give reference data: an .npz with one array of typical rows per input",
            )
        wanted = np.dtype(_DTYPES[tensor.datatype])
        count = tensor.shape[0] if tensor.shape[0] > 0 else rows
        shape = (max(count, 1), *tensor.shape[1:])
        values = generator.random(shape) if wanted.kind == "f" else generator.integers(0, 2, shape)
        found[tensor.name] = values.astype(wanted)
    return found


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ReferenceDataError("a single array; reference data is an .npz with one array per input")
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ReferenceDataError(f"not an .npz file of plain arrays: {error}") from None


def _fitted(tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    if tensor.datatype not in _DTYPES or not tensor.shape:
        raise ReferenceDataError(
            f"input {tensor.name!r} takes {tensor.datatype} without rows, which cannot be measured"
        )
    wanted = np.dtype(_DTYPES[tensor.datatype])
    if not np.can_cast(array.dtype, wanted, casting="same_kind"):
        raise ReferenceDataError(f"input {tensor.name!r} takes {wanted}; the file holds {array.dtype}")
    fits = array.ndim == len(tensor.shape) and all(
        size in (-1, given) for size, given in zip(tensor.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        shown = "x".join("any" if size < 0 else str(size) for size in tensor.shape)
        raise ReferenceDataError(f"input {tensor.name!r} takes the shape {shown}; the file holds {array.shape}")
    return np.ascontiguousarray(array.astype(wanted, copy=False))


def _listed(items: Any) -> str:
    return ", ".join(sorted(str(item) for item in items)) or "nothing"
