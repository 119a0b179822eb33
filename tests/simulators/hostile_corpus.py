"""Every hostile file by its name: how it is made, and where its way to serving ends."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto

from tests.simulators import hostile_bytes as raw
from tests.simulators import hostile_models as models
from tests.simulators.hostile_models import Hostile, Stopped, constant, edited, weights_from

Make = Callable[[Path], bytes]


def _bytes(make: Callable[..., bytes], *arguments: object) -> Make:
    return lambda _: make(*arguments)


#: No ONNX, or broken: the scan of the bytes refuses it.
_DAMAGED: Final[Mapping[str, Make]] = {
    "nothing": _bytes(bytes),
    "one byte": _bytes(lambda: b"\x08"),
    "zeros": _bytes(bytes, 4096),
    "random bytes": _bytes(raw.noise, 4096),
    "text": _bytes(lambda: b'{"model": "digits"}\n' * 40),
    "archive": _bytes(raw.archive),
    "pickle": _bytes(raw.pickled),
    "gzip": _bytes(raw.packed),
    "compiled engine": _bytes(raw.engine),
    "shared library": _bytes(raw.library),
    "onnxruntime's own form": _bytes(raw.flat),
    "cut after a tenth": _bytes(raw.cut, 0.1),
    "cut in the middle": _bytes(raw.cut, 0.5),
    "cut before the end": _bytes(raw.cut, 0.97),
    "length over the end": _bytes(raw.over_the_end),
    "wrong wire type": _bytes(raw.wrong_wire_type),
    "groups": _bytes(raw.group),
    "number that does not end": _bytes(raw.endless_number),
    "field nought": _bytes(raw.field_nought),
    "nested 5000 deep": _bytes(raw.deep_graphs, 5000),
    "five million fields": _bytes(raw.many, "fields"),
    "a million dimensions": _bytes(raw.dimensions, False),
    "a million dimensions, packed": _bytes(raw.dimensions, True),
    "a million opsets": _bytes(raw.many, "opsets"),
    "two graphs": _bytes(raw.twice, "graph"),
    "two operators in a node": _bytes(raw.twice, "operator"),
    "two domains in a node": _bytes(raw.twice, "domain"),
    "operator of four million letters": _bytes(raw.long_text, "operator"),
    "input of four million letters": _bytes(raw.long_text, "input"),
}

#: Well formed, and never to be loaded.
_FORBIDDEN: Final[Mapping[str, Make]] = {
    "weights in ../secret": weights_from("../secret"),
    "weights in ../secret, without a place": weights_from("../secret", entry=False),
    "weights in /etc/passwd": weights_from("/etc/passwd"),
    "weights in file:///etc/passwd": weights_from("file:///etc/passwd"),
    "weights in /proc/self/environ": weights_from("/proc/self/environ"),
    "weights in a/../../secret": models.through_a_folder,
    "weights behind a symbolic link": models.linked("link", lambda link, secret: link.symlink_to(secret)),
    "weights behind a hard link": models.linked("hard", lambda link, secret: link.hardlink_to(secret)),
    "weights in memory": weights_from(models.IN_MEMORY, offset=0x10000),
    "weights in memory, in a constant": models.in_a_constant(models.IN_MEMORY),
    "sparse weights in memory": models.sparse(models.IN_MEMORY),
    "sparse weights in ../secret": models.sparse("../secret"),
    "constant in ../secret": models.in_a_constant("../secret"),
    "constant of a branch in ../secret": models.in_a_branch("../secret"),
    "constant of a function in ../secret": models.in_a_function("../secret"),
    "training data in ../secret": edited(models.in_training),
    "compiled blob in ../secret": edited(models.compiled),
    "operator of an unknown domain": edited(lambda m: setattr(m.graph.node[0], "domain", "evil.ops")),
    "no IR version": edited(lambda m: m.ClearField("ir_version")),
    "negative IR version": edited(lambda m: setattr(m, "ir_version", -1)),
    "no opset": edited(lambda m: m.ClearField("opset_import")),
    "opset 0": edited(lambda m: setattr(m.opset_import[0], "version", 0)),
    "dimension 2^40": edited(lambda m: m.graph.initializer[0].dims.append(2**40)),
    "dimension -5": edited(lambda m: m.graph.initializer[0].dims.append(-5)),
    "dimensions that overflow": edited(lambda m: m.graph.initializer[0].dims.extend([2**32, 2**32])),
    "input of type 999": edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 999)),
    "input of dimension 2^60": edited(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**60)
    ),
    "sequence as output": edited(models.sequence_output),
    "25 functions that unfold": models.functions(models.unfolding(25, 2)),
    "25 functions that unfold, by another name of the domain": models.functions(
        models.unfolding(25, 2, calls="ai.onnx"), domain="", calls="ai.onnx"
    ),
    "function that calls itself": models.functions({"F0": models.calling("F0")}),
    "functions that call each other": models.functions({"F0": models.calling("F1"), "F1": models.calling("F0")}),
    "function that calls itself and is never called": models.functions({"F0": models.calling("F0")}, called=None),
    "function that calls itself by another name of the domain": models.functions(
        {"F0": models.calling("F0", domain="ai.onnx")}, domain="", calls="ai.onnx"
    ),
    "graphs nested 40 deep": _bytes(raw.deep_graphs, 40),
}

#: What only running it shows.
_WRONG: Final[Mapping[str, Make]] = {
    "IR version 99": edited(lambda m: setattr(m, "ir_version", 99)),
    "a second IR version": _bytes(raw.twice, "version"),
    "opset 99": edited(lambda m: setattr(m.opset_import[0], "version", 99)),
    "unknown operator": edited(lambda m: setattr(m.graph.node[0], "op_type", "Steal")),
    "nodes in a circle": edited(lambda m: m.graph.node[0].input.__setitem__(1, "y")),
    "value that nobody computes": edited(lambda m: m.graph.node[0].input.__setitem__(1, "missing")),
    "value that two nodes compute": edited(lambda m: m.graph.node.append(m.graph.node[0])),
    "weights of type 999": edited(lambda m: setattr(m.graph.initializer[0], "data_type", 999)),
    "more values promised than there are": edited(lambda m: m.graph.initializer[0].dims.__setitem__(0, 9000)),
    "types nested 5000 deep": _bytes(raw.deep_types),
    "a million inputs of a node": _bytes(raw.many, "inputs of a node"),
    "a hundred thousand attributes": _bytes(raw.many, "attributes"),
    "a million numbers in an attribute": _bytes(raw.many, "numbers of an attribute"),
    "a hundred thousand graphs in an attribute": _bytes(raw.many, "graphs of an attribute"),
    "tensor of 2^34 elements": models.shape_bomb([2**34]),
    "tensor of 2^34 elements, at run time": models.shape_bomb([2**34], fed=True),
    "tensor of 2^62 elements": models.shape_bomb([2**31, 2**31]),
    "two tensors of a gibibyte and more": models.shape_bomb([1_300_000_000], fed=True),
    "constants that fold to 100 GB": models.folded(
        "Expand", [constant("one", [1.0]), constant("size", [25_000_000_000], np.int64)]
    ),
    "constants that fold by repeating": models.folded(
        "Tile", [constant("few", [1.0] * 1000), constant("times", [25_000_000], np.int64)]
    ),
    "range without end": models.folded(
        "Range", [constant("from", 0, np.int64), constant("to", 2**40, np.int64), constant("by", 1, np.int64)]
    ),
    "loop that keeps everything": models.loop(2**40, keeps=True),
    "division that stops the processor": models.divided(),
    "weights that are not numbers": models.weights(np.full((8, 3), np.nan, np.float32)),
    "weights that are infinite": models.weights(np.full((8, 3), np.inf, np.float32)),
    "other weights": models.weights(np.eye(8, 3, dtype=np.float32)),
    "weights of another shape": models.weights(np.zeros((8, 5), np.float32)),
    "weights without elements": models.weights(np.zeros((8, 0), np.float32)),
    "another input": edited(models.other_input),
    "another output": edited(models.other_output),
    "another output beside": edited(models.more_outputs),
    "input of another type": edited(models.other_type),
    "output of another type": edited(models.text_output),
    "output of another shape": edited(models.transposed),
    "input of bfloat16 inside": edited(lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.BFLOAT16)),
}

_HANGING: Final[Mapping[str, Make]] = {
    "loop of 2^60 turns": models.loop(2**60),
    "loop without end": models.loop(None),
}

#: Strange, but a model that answers as published: it may serve, and must not do anything else.
_HARMLESS: Final[Mapping[str, Make]] = {
    "ifs 20 deep": models.nested_ifs(20),
    "four million letters of description": _bytes(raw.long_text, "description"),
    "settings for onnxruntime": edited(models.own_settings),
    "5000 nodes in a row": edited(models.long_chain),
}

#: Those that the scan refuses and that would never end without it.
_ENDLESS: Final = frozenset({"25 functions that unfold"})

CORPUS: Final[Mapping[str, Hostile]] = {
    **{name: Hostile(make, Stopped.SCAN, name in _ENDLESS) for name, make in {**_DAMAGED, **_FORBIDDEN}.items()},
    **{name: Hostile(make, Stopped.TRIAL) for name, make in _WRONG.items()},
    **{name: Hostile(make, Stopped.TRIAL, hangs=True) for name, make in _HANGING.items()},
    **{name: Hostile(make, Stopped.NOWHERE) for name, make in _HARMLESS.items()},
}

#: The good model with some bytes changed: whatever became of it is refused, or answers as published.
MUTATIONS: Final[Mapping[str, Make]] = {f"mutation {seed}": _bytes(raw.mutated, seed) for seed in range(60)}
