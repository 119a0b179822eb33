"""Networks as devices with a GPU run them, made on the spot: weights are random, sizes and kinds of nodes are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from agent.serving.supervisor import ModelFile
from shared.manifest import Tensor

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride, two blocks each


@dataclass
class _Net:
    """Nodes and weights, one after the other; `at` is the name of what was computed last."""

    half: bool
    chance: np.random.Generator
    at: str = "x"
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.at = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [self.at], **attributes))
        return self.at

    def given(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        floating = array.dtype.kind == "f"
        kind = (np.float16 if self.half else np.float32) if floating else array.dtype
        self.weights.append(numpy_helper.from_array(array.astype(kind), name))
        return name

    def normal(self, *shape: int, fan: int, gain: float = 1.0) -> str:
        return self.given(self.chance.normal(0, (gain / fan) ** 0.5, shape))

    def conv(self, x: str, into: int, out: int, *, size: int, stride: int = 1) -> str:
        kernel = self.normal(out, into, size, size, fan=into * size * size, gain=2.0)
        bias = self.given(np.zeros(out))
        edge = [size // 2] * 4
        return self.node("Conv", x, kernel, bias, kernel_shape=[size, size], strides=[stride, stride], pads=edge)

    def matrix(self, x: str, into: int, out: int) -> str:
        return self.node("Add", self.node("MatMul", x, self.normal(into, out, fan=into)), self.given(np.zeros(out)))

    def norm(self, x: str, width: int) -> str:
        return self.node("LayerNormalization", x, self.given(np.ones(width)), self.given(np.zeros(width)), axis=-1)

    def begin(self) -> str:
        return self.node("Cast", "x", to=TensorProto.FLOAT16) if self.half else "x"

    def save(self, path: Path, shape: Sequence[int], classes: int) -> ModelFile:
        self.nodes.append(helper.make_node("Cast" if self.half else "Identity", [self.at], ["y"],
                                           **({"to": TensorProto.FLOAT} if self.half else {})))  # fmt: skip
        sides = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *rest])
            for name, rest in (("x", shape), ("y", (classes,)))
        ]
        graph = helper.make_graph(self.nodes, path.stem, sides[:1], sides[1:], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        inputs, outputs = (
            (Tensor(name="x", datatype="FP32", shape=(-1, *shape)),),
            (Tensor(name="y", datatype="FP32", shape=(-1, classes)),),
        )
        return ModelFile(path.stem, "1", "a", path, inputs, outputs, ("CUDAExecutionProvider",))


def _net(seed: int, half: bool) -> _Net:
    return _Net(half, np.random.default_rng(seed))


def small(folder: Path, *, half: bool = False, seed: int = 1, name: str = "small") -> ModelFile:
    """Three convolutions on pictures of 64 x 64: 0.4 MB, next to no computing."""
    net = _net(seed, half)
    at = net.begin()
    for into, out in ((3, 32), (32, 64), (64, 128)):
        at = net.node("Relu", net.conv(at, into, out, size=3, stride=2))
    flat = net.node("Flatten", net.node("GlobalAveragePool", at), axis=1)
    net.matrix(flat, 128, 10)
    return net.save(folder / f"{name}.onnx", (3, 64, 64), 10)


def residual(folder: Path, *, half: bool = False, seed: int = 1, name: str = "residual") -> ModelFile:
    """The shape of a ResNet-18 on pictures of 224 x 224: 20 convolutions, 47 MB in 32 bits."""
    net = _net(seed, half)
    at = net.node("Relu", net.conv(net.begin(), 3, 64, size=7, stride=2))
    at = net.node("MaxPool", at, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    into = 64
    for out, stride in _STAGES:
        for step in (stride, 1):
            beside = net.conv(at, into, out, size=1, stride=step) if (into, step) != (out, 1) else at
            inner = net.node("Relu", net.conv(at, into, out, size=3, stride=step))
            inner = net.node("Mul", net.conv(inner, out, out, size=3), net.given(np.array([0.5])))
            at = net.node("Relu", net.node("Add", inner, beside))
            into = out
    flat = net.node("Flatten", net.node("GlobalAveragePool", at), axis=1)
    net.matrix(flat, 512, 1000)
    return net.save(folder / f"{name}.onnx", (3, 224, 224), 1000)


def transformer(folder: Path, *, half: bool = False, seed: int = 1, name: str = "transformer") -> ModelFile:
    """Six layers of attention over 128 places, 8 heads of 64: 76 MB in 32 bits. Its shapes are computed at run time."""
    net, places, width, heads = _net(seed, half), 128, 512, 8
    at = net.begin()
    size = net.node("Gather", net.node("Shape", "x"), net.given(np.array([0])), axis=0)
    split, joined = (
        net.node("Concat", size, net.given(np.array(rest)), axis=0)
        for rest in ([places, heads, width // heads], [places, width])
    )
    for _ in range(6):
        inner = net.norm(at, width)
        query, key, value = (
            net.node("Transpose", net.node("Reshape", net.matrix(inner, width, width), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = net.node("Mul", net.node("MatMul", query, key), net.given(np.array([(width / heads) ** -0.5])))
        mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), value)
        mixed = net.node("Reshape", net.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        at = net.node("Add", at, net.matrix(mixed, width, width))
        inner = net.node("Relu", net.matrix(net.norm(at, width), width, 4 * width))
        at = net.node("Add", at, net.matrix(inner, 4 * width, width))
    pooled = net.node("ReduceMean", net.norm(at, width), axes=[1], keepdims=0)
    net.matrix(pooled, width, 10)
    return net.save(folder / f"{name}.onnx", (places, width), 10)


def golden(file: ModelFile, rows: int, *, seed: int = 7) -> np.ndarray:
    """Inputs for it."""
    return np.random.default_rng(seed).normal(0, 1, (rows, *file.inputs[0].shape[1:])).astype(np.float32)
