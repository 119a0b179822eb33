"""Open Inference Protocol on bytes and arrays: a request body becomes inputs, outputs become a reply body.

JSON and binary tensors in any mixture (the binary tensor extension); texts of errors are Triton's, because
clients match on them. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agent.serving import worker_plan, worker_tensors
from agent.serving.worker_tensors import BadRequestError
from agent.serving.worker_wire import NOBODY

Parsed = dict[str, Any]
Lent = Callable[[int, Parsed, bool], memoryview]


class Wanted:
    """One output that the client asks for; `place`: in its own memory."""

    def __init__(self, name: str, binary: bool, classes: int = 0, place: "memoryview | None" = None) -> None:
        self.name = name
        self.binary = binary
        self.classes = classes
        self.place = place


class Call:
    """A parsed request. `lent`: some inputs lie in memory of the client, which is its own again after the answer."""

    def __init__(
        self,
        request_id: str,
        inputs: dict[str, np.ndarray],
        wanted: Sequence[Wanted],
        plan: "worker_plan.Plan | None" = None,
        lent: bool = False,
    ) -> None:
        self.request_id = request_id
        self.inputs = inputs
        self.wanted = wanted
        self.plan = plan
        self.lent = lent


class Codec:
    """Reads and writes bodies for one model. `inputs` and `outputs` have name, datatype, dtype and shape.

    `lent` finds memory that a client shares: of a user, named by the parameters of a tensor, to write there or not.
    """

    def __init__(
        self, model: str, version: str, inputs: Sequence[Any], outputs: Sequence[Any], *, lent: "Lent | None" = None
    ) -> None:
        self._model = model
        self._version = version
        self._lent_by = lent or _nothing_lent
        self._inputs = {spec.name: spec for spec in inputs}
        self._outputs = {spec.name: spec for spec in outputs}
        self._plans: worker_plan.Kept[worker_plan.Plan] = worker_plan.Kept()

    def parse(self, body: memoryview, json_bytes: int | None, user: int = NOBODY) -> Call:
        """The call in `body`, of which the first `json_bytes` are JSON (None: all of it; 0: raw single input).

        Arrays of binary inputs are views into `body`, or into shared memory of `user`.

        Raises:
            BadRequestError: with the text for the client.
        """
        if json_bytes == 0:
            return self._raw(body)
        if json_bytes is None:
            return self._read(bytes(body), body[:0], user)
        head, tail = bytes(body[:json_bytes]), body[json_bytes:]
        request_id, known = worker_plan.without_id(head)
        plan = self._plans.get(known)
        if plan is not None and plan.tail_bytes == len(tail):
            return Call(request_id, plan.read(tail), plan.wanted, plan)
        call = self._read(head, tail, user)
        if call.plan is not None and call.request_id == request_id:
            self._plans.keep(known, call.plan)
        return call

    def _read(self, head: bytes, tail: memoryview, user: int) -> Call:
        document = _document(head)
        request_id = document.get("id", "")
        if not isinstance(request_id, str):
            raise BadRequestError("Unable to parse 'id': attempt to access JSON non-string as string")
        try:
            inputs, sizes, lent = self._read_inputs(document, tail, user)
            wanted = self._read_wanted(document, user)
        except BadRequestError as error:
            prefix = f"[request id: {request_id}] " if request_id else ""
            raise BadRequestError(prefix + str(error)) from None
        plain = all(self._outputs[entry.name].datatype != "BYTES" and entry.place is None for entry in wanted)
        return Call(request_id, inputs, wanted, worker_plan.plan_of(inputs, sizes, wanted) if plain else None, lent)

    def reply(self, call: Call, results: Mapping[str, np.ndarray]) -> tuple[bytes, list[Any]]:
        """JSON part and binary parts, each a buffer of bytes (none: the reply is plain JSON)."""
        if call.plan is None:
            return self._write(call, results)
        arrays = [results[wanted.name] for wanted in call.wanted]
        shapes = tuple([array.shape for array in arrays])
        head = call.plan.head(shapes)
        if head is None:
            head, _ = self._write(Call("", call.inputs, call.wanted), results)
            call.plan.keep_head(shapes, head)
        return worker_plan.with_id(call.request_id, head), [worker_tensors.raw_bytes(array) for array in arrays]

    def _write(self, call: Call, results: Mapping[str, np.ndarray]) -> tuple[bytes, list[Any]]:
        entries: list[dict[str, Any]] = []
        tail: list[Any] = []
        for wanted in call.wanted:
            array = results[wanted.name]
            datatype = self._outputs[wanted.name].datatype
            if wanted.classes:
                array, datatype = worker_tensors.best_classes(array, wanted.classes), "BYTES"
            entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": list(array.shape)}
            if wanted.place is not None:  # no word of it in the answer: perf_analyzer stumbles over parameters here
                _deliver(
                    wanted,
                    worker_tensors.packed_text(array) if datatype == "BYTES" else worker_tensors.raw_bytes(array),
                )
            elif wanted.binary:
                raw = worker_tensors.packed_text(array) if datatype == "BYTES" else worker_tensors.raw_bytes(array)
                entry["parameters"] = {"binary_data_size": len(raw)}
                tail.append(raw)
            else:
                entry["data"] = (
                    [worker_tensors.plain_text(item) for item in array.ravel()]
                    if datatype == "BYTES"
                    else array.ravel().tolist()
                )
            entries.append(entry)
        document: dict[str, Any] = {"id": call.request_id} if call.request_id else {}
        document.update(model_name=self._model, model_version=self._version, outputs=entries)
        return json.dumps(document, separators=(",", ":")).encode(), tail

    def _raw(self, body: memoryview) -> Call:
        """`Inference-Header-Content-Length: 0`: the body is the data of the only input."""
        if len(self._inputs) != 1:
            raise BadRequestError(
                f"Raw request must only have 1 input to be deduced, but model '{self._model}' has {len(self._inputs)}"
            )
        spec = next(iter(self._inputs.values()))
        free = [position for position, size in enumerate(spec.shape) if size == -1]
        if spec.datatype == "BYTES" or len(free) > 1:
            raise BadRequestError(f"Raw request must have a fixed shape but one dimension; input '{spec.name}'")
        step = spec.dtype.itemsize
        for size in spec.shape:
            step *= size if size > 0 else 1
        count = len(body) // step if step else 0
        shape = [count if size == -1 else size for size in spec.shape]
        array = self._binary(spec, shape, body)
        return Call("", {spec.name: array}, [Wanted(name, True) for name in self._outputs])

    def _read_inputs(
        self, document: Parsed, tail: memoryview, user: int
    ) -> tuple[dict[str, np.ndarray], dict[str, int], bool]:
        """The inputs in their order, how many bytes those that came in `tail` take there, and if others are lent."""
        entries = _list(document, "inputs", required=True)
        found: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        at = 0
        lent = False
        for entry in entries:
            name, shape, datatype, parameters = _described(entry)
            spec = self._inputs.get(name)
            if spec is None:
                raise BadRequestError(f"unexpected inference input '{name}' for model '{self._model}'")
            if name in found:
                raise BadRequestError(f"input '{name}' already exists in request")
            self._check(spec, datatype, shape)
            if "shared_memory_region" in parameters:
                found[name] = self._lent(spec, shape, self._lent_by(user, parameters, False))
                lent = True
                continue
            size = parameters.get("binary_data_size")
            if size is None:
                found[name] = worker_tensors.from_json(name, spec, shape, entry)
                continue
            if not _is_count(size) or at + size > len(tail):
                raise BadRequestError(f"unexpected end of request: input '{name}' needs {size} bytes")
            found[name] = self._binary(spec, shape, tail[at : at + size])
            sizes[name] = size
            at += size
        missing = [name for name in self._inputs if name not in found]
        if missing:
            raise BadRequestError(
                f"expected {len(self._inputs)} inputs but got {len(found)} inputs for model '{self._model}'. Got "
                f"input(s) {sorted(found)}, but missing required input(s) {missing}. Please provide all required "
                "input(s)."
            )
        if at != len(tail):
            raise BadRequestError(f"unexpected additional input data for model '{self._model}'")
        return found, sizes, lent

    def _lent(self, spec: Any, shape: list[int], part: memoryview) -> np.ndarray:
        """An input in memory of the client. Only what cannot lead a model astray is used where it lies."""
        if spec.datatype == "BYTES":
            return self._binary(spec, shape, memoryview(bytes(part)))
        array = self._binary(spec, shape, part)
        return array.copy() if array.dtype.kind in "iu" and array.dtype.itemsize > 2 else array

    def _check(self, spec: Any, datatype: str, shape: list[int]) -> None:
        if datatype != spec.datatype:
            raise BadRequestError(
                f"inference input '{spec.name}' data-type is '{datatype}', but model '{self._model}' expects "
                f"'{spec.datatype}'"
            )
        fits = len(shape) == len(spec.shape) and all(
            want in (-1, size) for want, size in zip(spec.shape, shape, strict=False)
        )
        if not fits:
            raise BadRequestError(
                f"unexpected shape for input '{spec.name}' for model '{self._model}'. Expected "
                f"[{_joined(spec.shape)}], got [{_joined(shape)}]"
            )

    def _binary(self, spec: Any, shape: list[int], data: memoryview) -> np.ndarray:
        count = worker_tensors.elements(shape)
        if spec.datatype == "BYTES":
            return worker_tensors.unpacked_text(spec.name, data, count).reshape(shape)
        if len(data) != count * spec.dtype.itemsize:
            raise BadRequestError(
                f"input byte size mismatch for input '{spec.name}' for model '{self._model}'. Expected "
                f"{count * spec.dtype.itemsize}, got {len(data)}"
            )
        if count == 0:
            return np.zeros(shape, dtype=spec.dtype)
        array = np.frombuffer(data, dtype=spec.dtype).reshape(shape)
        return array if array.flags.aligned else array.copy()

    def _read_wanted(self, document: Parsed, user: int) -> list[Wanted]:
        parameters = _parameters(document)
        default = bool(parameters.get("binary_data_output", False))
        entries = _list(document, "outputs", required=False)
        if not entries:
            return [Wanted(name, default) for name in self._outputs]
        wanted: list[Wanted] = []
        for entry in entries:
            name = str(entry.get("name")) if isinstance(entry, dict) else ""
            if name not in self._outputs:
                raise BadRequestError(f"unexpected inference output '{name}' for model '{self._model}'")
            own = _parameters(entry)
            place = self._lent_by(user, own, True) if "shared_memory_region" in own else None
            classes = own.get("classification", 0)
            if not _is_count(classes):
                raise BadRequestError("Unable to parse 'classification': not a positive number")
            wanted.append(Wanted(name, bool(own.get("binary_data", default)), classes, place))
        return wanted


def _document(data: bytes) -> Parsed:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        detail = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BadRequestError(f"failed to parse the request JSON buffer: {detail}") from None
    if not isinstance(document, dict):
        raise BadRequestError("failed to parse the request JSON buffer: not an object")
    return document


def _list(document: Parsed, key: str, *, required: bool) -> list[Any]:
    if key not in document and not required:
        return []
    found = document.get(key)
    if not isinstance(found, list):
        raise BadRequestError(f"Unable to parse '{key}': attempt to access JSON non-array as array")
    return found


def _parameters(entry: Parsed) -> Parsed:
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise BadRequestError("Unable to parse 'parameters': attempt to access JSON non-object as object")
    return found


def _described(entry: Any) -> tuple[str, list[int], str, Parsed]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadRequestError("Unable to parse 'inputs': attempt to access non-existing object member 'name'")
    name = entry["name"]
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(_is_count(size) for size in shape):
        raise BadRequestError(f"Unable to parse 'shape' of input '{name}': not a list of sizes")
    if not isinstance(entry.get("datatype"), str):
        raise BadRequestError(f"Unable to parse 'datatype' of input '{name}': not a string")
    return name, shape, entry["datatype"], _parameters(entry)


def _deliver(wanted: Wanted, raw: Any) -> None:
    """Put an output where its client wants it."""
    place = wanted.place
    if place is None:
        raise ValueError("the output has no place of its own")
    if len(raw) > len(place):
        raise BadRequestError(
            f"shared memory size specified with the request for output '{wanted.name}' ({len(place)} bytes) should be "
            f"at least {len(raw)} bytes to hold the results"
        )
    place[: len(raw)] = raw


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _joined(shape: Sequence[int]) -> str:
    return ",".join(str(size) for size in shape)


def _nothing_lent(_user: int, parameters: Parsed, _write: bool) -> memoryview:
    raise BadRequestError("Unable to find shared memory region: '{}'".format(parameters["shared_memory_region"]))
