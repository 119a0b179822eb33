"""Recognise what somebody wants to publish, and tell how to make ONNX of what is not.

I/O: none.
"""

from __future__ import annotations

from typing import Final

from shared.errors import RefusedError
from shared.onnx_scan import ModelFacts, scan

_TORCH: Final = (
    "export it: torch.onnx.export(model.eval(), (example,), 'model.onnx', dynamo=True, external_data=False), "
    "then publish model.onnx"
)
_KERAS: Final = (
    "export it: keras.saving.load_model('{name}').export('model.onnx', format='onnx'), then publish model.onnx"
)
_TFLITE: Final = "convert it: python -m tf2onnx.convert --tflite {name} --output model.onnx, then publish model.onnx"
_PICKLE: Final = (
    "convert it: skl2onnx.to_onnx(model, example, options={{'zipmap': False}}).SerializeToString(), "
    "then publish that file (pickles run code when opened, so devices never take them)"
)
_ENGINE: Final = "publish the ONNX file it was built from; each device builds its own engine"

#: Ending -> what such a file is, what to do.
_FOREIGN: Final = {
    ".pt": ("a PyTorch file", _TORCH),
    ".pth": ("a PyTorch checkpoint", _TORCH),
    ".ckpt": ("a training checkpoint", _TORCH),
    ".safetensors": ("weights without a graph", _TORCH),
    ".h5": ("a Keras file", _KERAS),
    ".keras": ("a Keras file", _KERAS),
    ".pb": ("a TensorFlow graph", "convert it: python -m tf2onnx.convert --graphdef {name} --output model.onnx"),
    ".tflite": ("a TensorFlow Lite file", _TFLITE),
    ".engine": ("a TensorRT engine, built for one kind of GPU", _ENGINE),
    ".plan": ("a TensorRT engine, built for one kind of GPU", _ENGINE),
    ".trt": ("a TensorRT engine, built for one kind of GPU", _ENGINE),
    ".ort": ("an ONNX Runtime file", "publish the ONNX file it was made from"),
    ".pkl": ("a Python pickle", _PICKLE),
    ".pickle": ("a Python pickle", _PICKLE),
    ".joblib": ("a Python pickle", _PICKLE),
}
#: First bytes -> the ending that they are typical for, for files with a wrong name.
_MAGIC: Final = (
    (b"PK\x03\x04", ".pt"),
    (b"\x80\x02", ".pkl"),
    (b"\x80\x03", ".pkl"),
    (b"\x80\x04", ".pkl"),
    (b"\x80\x05", ".pkl"),
    (b"\x89HDF\r\n\x1a\n", ".h5"),
    (b"ftrt", ".engine"),
)


class NotOnnxError(RefusedError):
    """A model in a format that devices do not load."""

    code = "E_NOT_ONNX"


def refuse_other_formats(name: str, data: bytes) -> None:
    """Nothing, unless the name or the first bytes tell of another format than ONNX.

    Raises:
        NotOnnxError: with what the file is and how to export it.
    """
    ending = next((ending for ending in _FOREIGN if name.lower().endswith(ending)), None)
    ending = ending or next((ending for magic, ending in _MAGIC if data.startswith(magic)), None)
    ending = ending or (".tflite" if data[4:8] == b"TFL3" else None)
    if ending is not None:
        what, remedy = _FOREIGN[ending]
        raise NotOnnxError(f"{name} is {what}; devices run ONNX only", remedy=remedy.format(name=name))


def read_model(name: str, data: bytes) -> ModelFacts:
    """What the ONNX file `data`, called `name`, says of itself.

    Raises:
        NotOnnxError: another format.
        OnnxError: an ONNX file that is never loaded.
    """
    refuse_other_formats(name, data)
    return scan(data)
