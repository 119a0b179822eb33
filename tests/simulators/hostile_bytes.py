"""Files that are damaged, no ONNX at all, or protobuf that is made to hurt its parser. The same each time."""

import gzip
import io
import pickle
import random
import zipfile
from typing import Final

from tests.simulators.release_repository import tiny_model

VARINT, FIXED64, LENGTH, GROUP = 0, 1, 2, 3
GRAPH: Final = 7  # field of a model
MANY: Final = 1_000_000


def good() -> bytes:
    return tiny_model(0)


# Protobuf by hand


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found, number = found + bytes([number & 0x7F | 0x80]), number >> 7
    return found + bytes([number])


def field(number: int, body: bytes | int) -> bytes:
    """A field: a number, or bytes with their length before them."""
    if isinstance(body, int):
        return varint(number << 3 | VARINT) + varint(body)
    return varint(number << 3 | LENGTH) + varint(len(body)) + body


def in_the_graph(more: bytes) -> bytes:
    """The good model with these bytes at the end of its graph: protobuf joins the parts of a message, the scan does
    not, so the graph is taken out and put back."""
    import onnx

    model = onnx.load_from_string(good())
    graph = model.graph.SerializeToString() + more
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(GRAPH, graph)


def in_a_node(more: bytes) -> bytes:
    """The good model with one more node that holds these bytes."""
    node = field(1, b"x") + field(2, b"unused") + field(4, b"Relu")
    return in_the_graph(field(1, node + more))


# Damage


def cut(share: float) -> bytes:
    data = good()
    return data[: int(len(data) * share)]


def noise(length: int) -> bytes:
    return random.Random(7).randbytes(length)


def mutated(seed: int) -> bytes:
    """The good model with some bytes changed, most of them where its structure is."""
    chance, data = random.Random(seed), bytearray(good())
    for _ in range(1 + seed % 4):
        place = chance.randrange(len(data)) if chance.random() < 0.4 else chance.randrange(80)
        data[place] = chance.randrange(256)
    return bytes(data)


def over_the_end() -> bytes:
    return good() + varint(GRAPH << 3 | LENGTH) + varint(2**31) + b"\x00" * 100


def wrong_wire_type() -> bytes:
    return field(1, 8) + varint(GRAPH << 3 | FIXED64) + b"\x00" * 8 + good()


def group() -> bytes:
    return good() + varint(99 << 3 | GROUP) + varint(99 << 3 | GROUP + 1)


def endless_number() -> bytes:
    return good() + b"\x08" + b"\xff" * 40


def field_nought() -> bytes:
    return good() + b"\x00\x00"


def deep(number: int, levels: int) -> bytes:
    """A field in itself, so many times."""
    found = b""
    for _ in range(levels):
        found = field(number, found)
    return found


def deep_graphs(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(levels):
        graph = field(1, field(5, field(6, graph)))
    return field(1, 8) + field(GRAPH, graph)


def deep_types() -> bytes:
    """A sequence of a sequence of ..., as the type of a value inside the graph, where no scan looks."""
    kind = field(1, field(1, 1))
    for _ in range(5000):
        kind = field(4, field(1, kind))
    return in_the_graph(field(13, field(1, b"unused") + field(2, kind)))


def dimensions(packed: bool) -> bytes:
    """Weights with a million dimensions."""
    shape = field(1, b"\x01" * MANY) if packed else field(1, 1) * MANY
    return in_the_graph(field(5, shape + field(2, 1) + field(8, b"many") + field(9, b"\x00" * 4)))


def twice(part: str) -> bytes:
    """A part that a model has once, a second time: parsers join the two, or take the last."""
    import onnx

    model = onnx.load_from_string(good())
    if part == "graph":
        return good() + field(GRAPH, model.graph.SerializeToString())
    if part == "version":
        return good() + field(1, 99)
    if part == "operator":
        return in_a_node(field(4, b"EPContext"))
    return in_a_node(field(7, b"evil") + field(7, b""))


def many(what: str) -> bytes:
    """Something a million times."""
    match what:
        case "fields":
            return good() + field(99, 1) * (5 * MANY)
        case "opsets":
            return good() + b"".join(field(8, field(1, b"d%d" % at) + field(2, 1)) for at in range(MANY))
        case "inputs of a node":
            return in_a_node(field(1, b"x") * MANY)
        case "attributes":
            return in_a_node(
                b"".join(field(5, field(1, b"a%d" % at) + field(3, 1) + field(20, 2)) for at in range(100_000))
            )
        case "numbers of an attribute":
            return in_a_node(field(5, field(1, b"alpha") + field(8, b"\x01" * MANY) + field(20, 7)))
        case "graphs of an attribute":
            return in_a_node(field(5, field(1, b"alpha") + field(11, field(2, b"g")) * 100_000 + field(20, 10)))
    raise ValueError(what)


def long_text(where: str) -> bytes:
    text = b"a" * (4 * MANY)
    match where:
        case "operator":
            return in_a_node(field(4, text))
        case "input":
            return in_the_graph(field(11, field(1, text) + field(2, field(1, field(1, 1) + field(2, b"")))))
        case "description":
            return good() + field(6, text)
    raise ValueError(where)


# Other kinds of files


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as found:
        found.writestr("model.onnx", good())
    return file.getvalue()


class _Call:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch opened",)


def pickled() -> bytes:
    return pickle.dumps(_Call())


def packed() -> bytes:
    return gzip.compress(good(), mtime=0)


def engine() -> bytes:
    """What a TensorRT engine begins with."""
    return b"ftrt" + b"\x00" * 28 + noise(4000)


def library() -> bytes:
    """What a shared library begins with."""
    return b"\x7fELF\x02\x01\x01" + b"\x00" * 57 + noise(4000)


def flat() -> bytes:
    """What a file of onnxruntime's own form begins with."""
    return b"\x1c\x00\x00\x00ORTM" + noise(4000)
