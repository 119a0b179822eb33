"""Where the tensors lie in an ONNX file; all other bytes are its skeleton.

Any bytes have an answer: what is not understood is skeleton, so that every file can be rebuilt.

I/O: none.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from shared.onnx_wire import LENGTH, Field, OnnxError, Reader

MAX_TENSORS: Final = 65_536
MAX_DEPTH: Final = 32
_LEAST_BYTES: Final = 64  # less than this is cheaper inside the skeleton


class Kind(IntEnum):
    """How the elements of a tensor are to be read."""

    BYTES = 0
    FP32 = 1
    FP16 = 2
    BF16 = 3
    INT8 = 4
    UINT8 = 5
    INT32 = 6


#: TensorProto.data_type -> kind; 8-bit floats are kept as bytes of a kind that needs no arithmetic.
_KINDS: Final = {1: Kind.FP32, 10: Kind.FP16, 16: Kind.BF16, 3: Kind.INT8, 2: Kind.UINT8, 9: Kind.UINT8, 6: Kind.INT32}
WIDTH: Final = {
    Kind.BYTES: 1, Kind.FP32: 4, Kind.FP16: 2, Kind.BF16: 2, Kind.INT8: 1, Kind.UINT8: 1, Kind.INT32: 4,
}  # fmt: skip
#: Field number -> what is in it, for each message that is walked: model, graph, node, attribute, function, sparse.
CHILDREN: Final = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """The elements of one tensor: bytes `[start, end)` of the file, seen as `rows` equal rows."""

    name: str
    kind: Kind
    rows: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    @property
    def count(self) -> int:
        """Elements."""
        return self.size_bytes // WIDTH[self.kind]


def split(data: bytes | memoryview) -> tuple[Tensor, ...]:
    """The tensors of the file, ascending and apart from each other; none when it is not ONNX."""
    found: list[Tensor] = []
    try:
        _walk(Reader(memoryview(data)), "model", 0, len(data), 0, found)
    except OnnxError:
        return ()
    return tuple(found)


def _walk(reader: Reader, message: str, start: int, end: int, depth: int, found: list[Tensor]) -> None:
    if depth > MAX_DEPTH:
        raise OnnxError("nested too deep for a delta")
    for field in reader.fields(start, end):
        child = CHILDREN[message].get(field.number)
        if child is None or field.wire != LENGTH:
            continue
        if child == "tensor":
            _add(reader, field, found)
        else:
            _walk(reader, child, field.start, field.end, depth + 1, found)
    if len(found) > MAX_TENSORS:
        raise OnnxError("too many tensors for a delta")


def _add(reader: Reader, tensor: Field, found: list[Tensor]) -> None:
    """The longest run of elements in the tensor; other runs stay in the skeleton."""
    dims: list[int] = []
    name, datatype, best = "", 0, (0, 0)
    for field in reader.fields(tensor.start, tensor.end):
        if field.number == 1:
            dims.extend(reader.numbers(field, "dimension") if len(dims) < 64 else ())
        elif field.number == 2:
            datatype = field.value
        elif field.number == 8:
            name = reader.text(field, "tensor name")
        elif field.wire == LENGTH and field.number in (4, 9) and field.end - field.start > best[1] - best[0]:
            best = (field.start, field.end)
    start, end = best
    if end - start < _LEAST_BYTES:
        return
    kind = _KINDS.get(datatype, Kind.BYTES)
    if (end - start) % WIDTH[kind]:
        kind = Kind.BYTES
    count = (end - start) // WIDTH[kind]
    rows = dims[0] if len(dims) > 1 and 0 < dims[0] <= count and count % dims[0] == 0 else 1
    found.append(Tensor(name, kind, rows, start, end))


def skeleton(data: bytes | memoryview, tensors: tuple[Tensor, ...]) -> bytes:
    """All bytes of the file outside its tensors."""
    view = memoryview(data)
    edges = [0, *(edge for tensor in tensors for edge in (tensor.start, tensor.end)), len(view)]
    return b"".join(view[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
