"""The models that benches run, made on the spot: weights are random, their cost is not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from agent.serving.supervisor import ModelFile
from shared.manifest import Tensor
from tests.agent.serving.kit import INPUTS, OUTPUTS, model_file, save_model

FRAME_IN = (Tensor(name="frame", datatype="FP32", shape=(-1, 3, 640, 640)),)
FRAME_OUT = (Tensor(name="corner", datatype="FP32", shape=(-1, 3, 1, 10)),)
FRAME = np.zeros((1, 3, 640, 640), np.float32)  # 4.9 MB
DIGIT = np.full((1, 1, 8, 8), 0.5, np.float32)


def digits(folder: Path, version: str = "1", *, hidden: int = 32, seed: int = 1) -> ModelFile:
    """64 -> hidden -> 10 with a softmax, as model `digits`."""
    chance = np.random.default_rng(seed)
    sizes = [64, hidden, 10]
    nodes = [helper.make_node("Flatten", ["image"], ["h0"], axis=1)]
    weights = []
    for layer in range(2):
        matrix = chance.normal(0, 0.2, (sizes[layer], sizes[layer + 1])).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(sizes[layer + 1], np.float32), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"g{layer}"]))
        kind, out = ("Relu", "h1") if layer == 0 else ("Softmax", "scores")
        nodes.append(helper.make_node(kind, [f"g{layer}"], [out]))
    path = folder / f"digits-{version}.onnx"
    save_model(path, nodes, weights, inputs=INPUTS, outputs=OUTPUTS)
    return model_file(path, version)


def heavy(folder: Path, version: str = "heavy", *, megabytes: int = 150) -> ModelFile:
    """As `digits`, beside a branch with so many megabytes of weights that no input takes: dear to load, not to run."""
    chance = np.random.default_rng(2)
    width = int((megabytes * 1e6 / 4) ** 0.5)
    floats = {
        "big0": chance.normal(0, 0.01, (64, width)),
        "big1": chance.normal(0, 0.01, (width, width)),
        "big2": chance.normal(0, 0.01, (width, 10)),
        "small0": chance.normal(0, 0.2, (64, 32)),
        "small1": chance.normal(0, 0.2, (32, 10)),
        "never": np.array(1e30),
    }
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in floats.items()]
    branches = {
        "then_branch": _branch(["big0", "big1", "big2"], weights[:3]),
        "else_branch": _branch(["small0", "small1"], weights[3:5]),
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "never"], ["whether"]),
        helper.make_node("If", ["whether"], ["logits"], **branches),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    path = folder / f"digits-{version}.onnx"
    save_model(path, nodes, weights[5:], inputs=INPUTS, outputs=OUTPUTS)
    return model_file(path, version)


def _branch(names: Sequence[str], weights: Sequence[TensorProto]) -> GraphProto:
    """A chain of products with these weights."""
    steps = ["flat", *(f"{name}.out" for name in names)]
    nodes = [helper.make_node("MatMul", [steps[at], name], [steps[at + 1]]) for at, name in enumerate(names)]
    result = helper.make_tensor_value_info(steps[-1], TensorProto.FLOAT, None)
    return helper.make_graph(nodes, names[0], [], [result], list(weights))


def frame(folder: Path) -> ModelFile:
    """Takes a picture of 4.9 MB and looks at ten values of each colour: next to no computing."""
    cuts = [
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in (("from", (0, 0)), ("to", (1, 10)), ("axes", (2, 3)))
    ]
    path = folder / "frame.onnx"
    nodes = [helper.make_node("Slice", ["frame", "from", "to", "axes"], ["corner"])]
    save_model(path, nodes, cuts, inputs=FRAME_IN, outputs=FRAME_OUT)
    return model_file(path, "1", model="frame", inputs=FRAME_IN, outputs=FRAME_OUT)
