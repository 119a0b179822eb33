"""Weights that lie beside a model file, read into it (`fleet/releases/inlining.py`).

Only from the folder of the model and below: a file from elsewhere cannot make a publisher give away others.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.releases.inlining import MAX_FILE_BYTES, inlined
from shared.onnx_wire import OnnxError

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.releases.inlining import Place


def gathered(onnx: bytes, folder: Path) -> bytes:
    """The model file `onnx` out of `folder` with all its weights; as it is where it has them all.

    Raises:
        OnnxError: they cannot be had.
    """
    return inlined(onnx, lambda place: _brought(place, folder))


def _brought(place: Place, folder: Path) -> bytes:
    path = (folder / place.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise OnnxError(
            f"weights outside the file at {place.file!r}, which is not in the model's folder",
            remedy="save the model as one file: onnx.save(onnx.load(FILE), NEW_FILE, save_as_external_data=False)",
        )
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "not a file")
        with path.open("rb") as file:
            file.seek(place.start)
            weights = file.read(MAX_FILE_BYTES + 1 if place.size_bytes is None else place.size_bytes)
    except OSError as error:
        raise OnnxError(
            f"weights outside the file in {place.file}, which cannot be read: {error.strerror}",
            remedy="put it beside the model file, under the name that the model knows",
        ) from None
    if place.size_bytes is not None and len(weights) != place.size_bytes:
        raise OnnxError(
            f"{place.file} ends before the weights do: {len(weights)} of {place.size_bytes} bytes at {place.start}",
            remedy="copy the file again, or export the model again",
        )
    return weights
