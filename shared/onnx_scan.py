"""Look through the bytes of an ONNX file before any runtime opens it, without the `onnx` package.

Walks the protobuf of `ModelProto` and refuses what an inference model never needs and what runtimes
have been hurt by: data outside the file, operators of unknown domains, compiled blobs (EPContext),
recursive or exploding local functions, deep nesting, absurd shapes, malformed bytes (ADR 5). A
model that passes may still be slow or wrong: it is first run in a throw-away child.

    bytes --Reader--> fields --_Scan.walk--> tensors, nodes, functions --> ModelFacts

I/O: none.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from shared.manifest import Datatype, Tensor
from shared.onnx_wire import LENGTH, VARINT, Field, OnnxError, Readable, Reader, expect, signed

__all__ = ["ModelFacts", "OnnxError", "scan"]

ALLOWED_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
COMPILED_OPERATORS: Final = frozenset({"EPContext"})  # opaque blobs or file names for one vendor's runtime
MAX_NESTING: Final = 100  # messages inside messages; protobuf's own limit
MAX_ELEMENTS: Final = 2**31  # of one tensor
MAX_DIMENSIONS: Final = 64  # of one tensor; runtimes need seconds for a million, and no model has ten
MAX_OPSETS: Final = 64
MAX_INLINED_NODES: Final = 1_000_000  # after every local function is written out

_DATATYPES: Final[Mapping[int, Datatype]] = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64",
    8: "BYTES", 9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the file says of itself. `borders`: ascending offsets at which a tensor ends (for `chunking.cut`)."""

    ir_version: int
    opset: dict[str, int]  # operator domain -> version; the default domain is called `ai.onnx`
    inputs: tuple[Tensor, ...]  # -1 is a free dimension; inputs that have an initializer are left out
    outputs: tuple[Tensor, ...]  # an output without any declared shape is given as (-1,)
    borders: tuple[int, ...]


class _Kind(Enum):
    """Messages that are walked; the value is the word for error texts."""

    MODEL = "model"
    TRAINING = "training info"
    GRAPH = "graph"
    NODE = "node"
    ATTRIBUTE = "attribute"
    TENSOR = "tensor"
    SPARSE = "sparse tensor"
    FUNCTION = "function"


#: Field number -> the message in it (onnx.proto).
_CHILDREN: Final[Mapping[_Kind, Mapping[int, _Kind]]] = {
    _Kind.MODEL: {7: _Kind.GRAPH, 20: _Kind.TRAINING, 25: _Kind.FUNCTION},
    _Kind.TRAINING: {1: _Kind.GRAPH, 2: _Kind.GRAPH},
    _Kind.GRAPH: {1: _Kind.NODE, 5: _Kind.TENSOR, 15: _Kind.SPARSE},
    _Kind.NODE: {5: _Kind.ATTRIBUTE},
    _Kind.ATTRIBUTE: {
        5: _Kind.TENSOR, 10: _Kind.TENSOR, 6: _Kind.GRAPH, 11: _Kind.GRAPH, 22: _Kind.SPARSE, 23: _Kind.SPARSE,
    },
    _Kind.TENSOR: {},
    _Kind.SPARSE: {1: _Kind.TENSOR, 2: _Kind.TENSOR},
    _Kind.FUNCTION: {7: _Kind.NODE, 11: _Kind.ATTRIBUTE},
}  # fmt: skip

_Operator = tuple[str, str, str]  # domain, name, overload


@dataclass(slots=True)
class _Body:
    """What belongs to the main graph or to one function: which operators it uses, how often."""

    calls: Counter[_Operator] = field(default_factory=Counter)


def scan(data: Readable) -> ModelFacts:
    """What the ONNX file `data` says of itself. Weights are passed over.

    Raises:
        OnnxError: not ONNX, malformed, or something that is never loaded; the text says what and why.
    """
    found = _Scan(Reader(data))
    found.walk(_Kind.MODEL, 0, len(data), 0, found.main)
    found.judge_operators()
    return found.facts()


class _Scan:
    """One walk over one file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.main = _Body()
        self._functions: dict[_Operator, _Body] = {}
        self._graphs = 0
        self._ir_version = 0
        self._opset: dict[str, int] = {}
        self._borders: list[int] = []
        self._initialized: set[str] = set()
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def walk(self, kind: _Kind, start: int, end: int, depth: int, body: _Body) -> None:
        """Check the message in `[start, end)` and all that is in it."""
        if depth > MAX_NESTING:
            raise OnnxError(f"nested deeper than {MAX_NESTING}")
        if kind is _Kind.FUNCTION:
            body = _Body()
        operator = {"domain": "", "name": "", "overload": ""}
        shape: list[int] = []
        for found in self._reader.fields(start, end):
            child = _CHILDREN[kind].get(found.number)
            if child is not None:
                expect(found, LENGTH, child.value)
                self.walk(child, found.start, found.end, depth + 1, body)
            match kind:
                case _Kind.MODEL:
                    self._model_field(found)
                case _Kind.GRAPH if depth == 1:
                    self._graph_field(found)
                case _Kind.NODE | _Kind.FUNCTION:
                    self._operator_field(kind, found, operator)
                case _Kind.TENSOR | _Kind.SPARSE:
                    self._tensor_field(kind, found, shape)
                case _:
                    pass
        self._close(kind, end, operator, body)

    def _close(self, kind: _Kind, end: int, operator: Mapping[str, str], body: _Body) -> None:
        domain = "" if operator["domain"] == "ai.onnx" else operator["domain"]  # two names of one domain
        key = (domain, operator["name"], operator["overload"])
        if kind is _Kind.TENSOR:
            self._borders.append(end)
        elif kind is _Kind.NODE:
            body.calls[key] += 1
        elif kind is _Kind.FUNCTION:
            if key in self._functions:
                raise OnnxError(f"function {key[1]!r} of domain {key[0]!r} is defined twice")
            self._functions[key] = body

    def _model_field(self, found: Field) -> None:
        if found.number == 1:
            expect(found, VARINT, "ir_version")
            self._ir_version = found.value
        elif found.number == 7:
            self._graphs += 1
        elif found.number == 8:
            expect(found, LENGTH, "opset_import")
            domain, version = "", 0
            for part in self._reader.fields(found.start, found.end):
                if part.number == 1:
                    domain = self._reader.text(part, "operator domain")
                elif part.number == 2:
                    expect(part, VARINT, "opset version")
                    version = part.value
            if not 0 < version < 2**31:
                raise OnnxError(f"opset version {version} of domain {domain!r}")
            self._opset[domain or "ai.onnx"] = version
            if len(self._opset) > MAX_OPSETS:
                raise OnnxError(f"operators of more than {MAX_OPSETS} domains")

    def _graph_field(self, found: Field) -> None:
        if found.number in (5, 15):
            self._initialized.add(self._initializer_name(found))
        elif found.number == 11:
            self._inputs.append(_value(self._reader, found, "input"))
        elif found.number == 12:
            self._outputs.append(_value(self._reader, found, "output"))

    def _initializer_name(self, found: Field) -> str:
        for part in self._reader.fields(found.start, found.end):
            if found.number == 5 and part.number == 8:
                return self._reader.text(part, "tensor name")
            if found.number == 15 and part.number == 1:
                values = self._reader.fields(part.start, part.end)
                return next((self._reader.text(each, "tensor name") for each in values if each.number == 8), "")
        return ""

    def _operator_field(self, kind: _Kind, found: Field, operator: dict[str, str]) -> None:
        names = (
            {4: "name", 7: "domain", 8: "overload"} if kind is _Kind.NODE else {1: "name", 10: "domain", 13: "overload"}
        )
        name = names.get(found.number)
        if name is not None:
            if operator[name]:
                raise OnnxError(f"a {kind.value} with two {name}s")  # parsers would take the last one
            operator[name] = self._reader.text(found, f"operator {name}")

    def _tensor_field(self, kind: _Kind, found: Field, shape: list[int]) -> None:
        if found.number == (1 if kind is _Kind.TENSOR else 3):
            for size in self._reader.numbers(found, "tensor dimension"):
                shape.append(size)
                if size < 0:
                    raise OnnxError(f"a tensor with the dimension {size}")
                if math.prod(shape) > MAX_ELEMENTS:
                    raise OnnxError(f"a tensor with more than {MAX_ELEMENTS} elements")
                if len(shape) > MAX_DIMENSIONS:
                    raise OnnxError(f"a tensor with more than {MAX_DIMENSIONS} dimensions")
        elif kind is _Kind.TENSOR and (found.number == 13 or (found.number == 14 and found.value != 0)):
            raise OnnxError(
                "weights outside the file (external data): the file could name any path of the device",
                remedy="save the model as one file: onnx.save(onnx.load(FILE), NEW_FILE, save_as_external_data=False)",
            )

    def judge_operators(self) -> None:
        """Refuse operators of unknown domains, compiled blobs, and functions that call themselves or explode."""
        for body in (self.main, *self._functions.values()):
            for domain, name, overload in body.calls:
                if name in COMPILED_OPERATORS:
                    raise OnnxError(f"operator {name}: a model compiled for one device; publish the original")
                if domain not in ALLOWED_DOMAINS and (domain, name, overload) not in self._functions:
                    raise OnnxError(
                        f"operator {name!r} of the unknown domain {domain!r}: devices would need a custom library",
                        remedy=f"export with standard operators; allowed: {', '.join(sorted(ALLOWED_DOMAINS - {''}))}",
                    )
        known: dict[_Operator, int] = {}
        for body in (self.main, *self._functions.values()):  # also those that nobody calls: runtimes look at them
            if self._functions and self._inlined(body, (), known) > MAX_INLINED_NODES:
                raise OnnxError(f"local functions that unfold into more than {MAX_INLINED_NODES} nodes")

    def _inlined(self, body: _Body, path: tuple[_Operator, ...], known: dict[_Operator, int]) -> int:
        total = 0
        for operator, times in body.calls.items():
            if operator not in self._functions:
                total += times
                continue
            if operator in path or len(path) >= MAX_NESTING:
                raise OnnxError(f"function {operator[1]!r} calls itself or is nested too deeply")
            if operator not in known:
                known[operator] = self._inlined(self._functions[operator], (*path, operator), known)
            total += times * (1 + known[operator])
        return total

    def facts(self) -> ModelFacts:
        """What was found.

        Raises:
            OnnxError: something that every model has is missing.
        """
        inputs = tuple(tensor for tensor in self._inputs if tensor.name not in self._initialized)
        if self._graphs != 1:
            raise OnnxError("not an ONNX model: no graph" if not self._graphs else "more than one graph")
        if not 0 < self._ir_version < 2**31 or "ai.onnx" not in self._opset:
            raise OnnxError("not an ONNX model: no IR version, or no version of the standard operators")
        for side, tensors in (("input", inputs), ("output", tuple(self._outputs))):
            if not 1 <= len(tensors) <= 256 or len({tensor.name for tensor in tensors}) != len(tensors):
                raise OnnxError(f"{len(tensors)} {side}s, or two of one name; a model has 1 to 256 different ones")
        return ModelFacts(
            self._ir_version, self._opset, inputs, tuple(self._outputs), tuple(sorted(set(self._borders)))
        )


def _value(reader: Reader, found: Field, side: str) -> Tensor:
    """ValueInfoProto -> Tensor."""
    expect(found, LENGTH, side)
    name, shape, element = "", None, 0
    for part in reader.fields(found.start, found.end):
        if part.number == 1:
            name = reader.text(part, f"{side} name")
        elif part.number == 2:
            element, shape = _type(reader, part, f"{side} {name!r}")
    if not 0 < len(name) <= 256:
        raise OnnxError(f"an {side} whose name has {len(name)} characters; 1 to 256 are allowed")
    if element not in _DATATYPES:
        raise OnnxError(f"{side} {name!r} has element type {element}, which the inference protocol cannot carry")
    if shape is None and side == "input":
        raise OnnxError(f"input {name!r} has no declared shape", remedy="export with named input shapes")
    if shape is not None and len(shape) > 16:
        raise OnnxError(f"{side} {name!r} has {len(shape)} dimensions; 16 are allowed")
    return Tensor(name=name, datatype=_DATATYPES[element], shape=(-1,) if shape is None else shape)


def _type(reader: Reader, found: Field, what: str) -> tuple[int, tuple[int, ...] | None]:
    """TypeProto -> element type and shape."""
    expect(found, LENGTH, what)
    element, shape = 0, None
    for part in reader.fields(found.start, found.end):
        if part.number in (4, 5, 8, 9):
            raise OnnxError(
                f"{what} is a sequence, map, optional or sparse value; only plain tensors can be served",
                remedy="export with tensor outputs (skl2onnx: options={'zipmap': False})",
            )
        if part.number == 1:
            expect(part, LENGTH, what)
            for inner in reader.fields(part.start, part.end):
                if inner.number == 1:
                    expect(inner, VARINT, what)
                    element = inner.value
                elif inner.number == 2:
                    expect(inner, LENGTH, what)
                    shape = _shape(reader, inner, what)
    return element, shape


def _shape(reader: Reader, found: Field, what: str) -> tuple[int, ...]:
    """TensorShapeProto -> sizes; -1 for a name, nothing, or 0 (old exporters write that for `any`)."""
    sizes: list[int] = []
    for part in reader.fields(found.start, found.end):
        if part.number != 1:
            continue
        expect(part, LENGTH, what)
        size = -1
        for inner in reader.fields(part.start, part.end):
            if inner.number == 1:
                expect(inner, VARINT, what)
                size = signed(inner.value) or -1
                if not -1 <= size <= MAX_ELEMENTS:
                    raise OnnxError(f"{what} has the dimension {size}")
            elif inner.number == 2:
                size = -1
        sizes.append(size)
    return tuple(sizes)
