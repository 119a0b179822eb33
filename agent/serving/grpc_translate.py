"""Inference over gRPC as inference over HTTP: a message becomes header and binary tensors, an answer a message.

I/O: none.
"""

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

# Datatype -> where typed contents carry it, and its type code in memory (all our platforms are little-endian).
_CONTENTS: Final[Mapping[str, tuple[str, str]]] = {
    "BOOL": ("bool_contents", "B"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
}
_REGION: Final = "shared_memory_region"
_OURS: Final = frozenset({"binary_data", "binary_data_output", "binary_data_size"})  # HTTP's own, not for clients here
FINAL_WANTED: Final = "triton_enable_empty_final_response"
FINAL: Final = "triton_final_response"


class BadMessageError(Exception):
    """What the client sent cannot be asked; the text is for the client."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An inference request for the front."""

    path: str
    header: bytes  # JSON part of the body
    pieces: Sequence[bytes]  # binary part
    regions: bool  # shared memory takes part


def model_path(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def asked(request: Any) -> Asked:
    """`request` (ModelInferRequest) for the front.

    Raises:
        BadMessageError: typed and raw contents are mixed, missing or of the wrong type.
    """
    raw = list(request.raw_input_contents)
    given = len(raw)
    pieces: list[bytes] = []
    regions = False
    inputs: list[dict[str, Any]] = []
    for tensor in request.inputs:
        parameters = _plain(tensor.parameters)
        if _REGION in parameters:
            regions = True
        else:
            piece = _piece(tensor, raw, given, request.model_name)
            parameters["binary_data_size"] = len(piece)
            pieces.append(piece)
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": parameters,
            }
        )
    if raw:
        raise BadMessageError(
            f"expected {given - len(raw)} raw input contents for model '{request.model_name}', got {given}"
        )
    document: dict[str, Any] = {
        "inputs": inputs,
        "parameters": {**_plain(request.parameters), "binary_data_output": True},
    }
    if request.id:
        document["id"] = request.id
    if request.outputs:
        outputs = [{"name": tensor.name, "parameters": _plain(tensor.parameters)} for tensor in request.outputs]
        regions = regions or any(_REGION in output["parameters"] for output in outputs)
        document["outputs"] = outputs
    header = json.dumps(document, separators=(",", ":")).encode()
    return Asked(model_path(request.model_name, request.model_version) + "/infer", header, pieces, regions)


def fill(answer: Any, body: memoryview, json_bytes: int | None) -> None:
    """`answer` (an empty ModelInferResponse) from the body of the front's answer; `json_bytes` None: all of it is JSON.

    An output that lies in shared memory has an empty entry in `raw_output_contents` and no parameters.
    """
    at = len(body) if json_bytes is None else json_bytes
    document = json.loads(bytes(body[:at]))
    answer.model_name = document["model_name"]
    answer.model_version = document["model_version"]
    answer.id = document.get("id", "")
    _set_all(answer.parameters, document.get("parameters", {}))
    for entry in document["outputs"]:
        parameters = entry.get("parameters", {})
        size = parameters.get("binary_data_size", 0)
        tensor = answer.outputs.add(name=entry["name"], datatype=entry["datatype"], shape=entry["shape"])
        _set_all(tensor.parameters, parameters)
        answer.raw_output_contents.append(bytes(body[at : at + size]))
        at += size


def _piece(tensor: Any, raw: list[bytes], given: int, model: str) -> bytes:
    """The data of one input as bytes. Takes it from the front of `raw` if the request has raw contents."""
    if not given:
        return _packed(tensor)
    if tensor.HasField("contents"):
        raise BadMessageError(
            f"contents field must not be specified when using raw_input_contents for '{tensor.name}' "
            f"for model '{model}'"
        )
    if not raw:
        raise BadMessageError(f"no raw input contents are left for input '{tensor.name}' for model '{model}'")
    return raw.pop(0)


def _packed(tensor: Any) -> bytes:
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in contents.bytes_contents)
    if tensor.datatype not in _CONTENTS:
        raise BadMessageError(
            f"typed contents cannot carry datatype '{tensor.datatype}' of input '{tensor.name}'; use raw_input_contents"
        )
    name, code = _CONTENTS[tensor.datatype]
    try:
        return array(code, getattr(contents, name)).tobytes()
    except OverflowError:
        raise BadMessageError(f"a value of input '{tensor.name}' does not fit into {tensor.datatype}") from None


def _plain(parameters: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None and name not in _OURS:
            found[name] = getattr(parameter, choice)
    return found


def _set_all(parameters: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in _OURS:
            continue
        match value:
            case bool():
                parameters[name].bool_param = value
            case int():
                parameters[name].int64_param = value
            case float():
                parameters[name].double_param = value
            case _:
                parameters[name].string_param = str(value)
