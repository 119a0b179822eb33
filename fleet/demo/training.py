"""Train digit classifiers on scikit-learn's bundled handwritten digits and write them as ONNX.

Three versions for the story: a small net, a better one, and one that was trained on negatives by
mistake. The last passes every test that its own maker would think of and is wrong on every camera.

I/O: none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

Images = NDArray[np.float32]  # [rows, 1, 8, 8], ink 0 to 16
Labels = NDArray[np.int64]  # [rows], 0 to 9
BRIGHTEST = 16.0
_TRAIN, _REFERENCE = 700, 550  # of 1797; the rest is what the cameras see


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images with their true digits."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True)
class Digits:
    """The bundled set, split once and for all: what is trained on is never shown to a camera."""

    train: Pictures
    reference: Pictures
    live: Pictures


def load() -> Digits:
    """The three parts, in a fixed random order."""
    raw = load_digits()
    images = raw.images.astype(np.float32)[:, None, :, :]
    order = np.random.default_rng(7).permutation(len(images))
    parts = np.split(order, [_TRAIN, _TRAIN + _REFERENCE])
    train, reference, live = (Pictures(images[part], raw.target[part].astype(np.int64)) for part in parts)
    return Digits(train, reference, live)


def negative(pictures: Pictures) -> Pictures:
    """Light where there was ink: the mistake of the bad release."""
    return Pictures(np.asarray(BRIGHTEST - pictures.images, np.float32), pictures.labels)


def darken(images: Images) -> Images:
    """A dirty lens at dusk: 3 x 3 blur and six tenths of the light."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    shifted = [padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    return np.asarray(np.mean(shifted, axis=0) * 0.6, np.float32)


def train(pictures: Pictures, *, hidden: int, rounds: int, seed: int) -> bytes:
    """An ONNX classifier `images` [-1, 1, 8, 8] FP32 -> `probabilities` [-1, 10] FP32."""
    net = MLPClassifier((hidden,), max_iter=rounds, random_state=seed, tol=0.0, n_iter_no_change=rounds)
    rows = pictures.images.reshape(len(pictures.images), -1) / BRIGHTEST
    for _ in range(rounds):
        net.partial_fit(rows, pictures.labels, classes=np.arange(10))
    return _to_onnx(net)


def _to_onnx(net: Any) -> bytes:
    weights = [
        numpy_helper.from_array(np.asarray(array, np.float32), name)
        for layer, (matrix, bias) in enumerate(zip(net.coefs_, net.intercepts_, strict=True))
        for name, array in ((f"w{layer}", matrix), (f"b{layer}", bias))
    ]
    scale = numpy_helper.from_array(np.asarray(1 / BRIGHTEST, np.float32), "scale")
    nodes = [
        helper.make_node("Mul", ["images", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w0", "b0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w1", "b1"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 10])],
        [scale, *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
