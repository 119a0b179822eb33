"""Real classifiers of handwritten digits, trained on the spot from scikit-learn's bundled set.

`train()` gives an ONNX file (Flatten, Gemm, Relu, Gemm, Softmax; input `image` [rows, 8, 8] FP32 in 0 to 1, output
`scores` [rows, 10]) with the reference and live thirds of the data that it never saw in training. Cached per argument.
"""

import io
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier


class Trained(NamedTuple):
    onnx_bytes: bytes
    reference_x: np.ndarray
    reference_y: np.ndarray
    live_x: np.ndarray
    live_y: np.ndarray

    def reference_npz(self) -> bytes:
        """What `flotilla model publish --reference` takes."""
        file = io.BytesIO()
        np.savez(file, image=self.reference_x, y=self.reference_y)
        return file.getvalue()


@cache
def train(seed: int = 1, *, hidden: int = 32, rounds: int = 60, wrong: bool = False) -> Trained:
    """A classifier of about 95 % accuracy. `wrong`: the output classes are permuted, so that it passes every check of
    form, and its own golden outputs, but answers badly."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8)
    order = np.random.default_rng(7).permutation(len(images))  # the split is the same for every seed
    learn, reference, live = np.array_split(order, 3)
    weights, biases = fit(images[learn], labels[learn], seed=seed, hidden=hidden, rounds=rounds)
    if wrong:
        weights[1], biases[1] = np.roll(weights[1], 1, axis=1), np.roll(biases[1], 1)
    return Trained(
        build(weights, biases), images[reference], labels[reference].astype(np.int64), images[live], labels[live]
    )


def fit(
    images: np.ndarray, labels: np.ndarray, *, seed: int = 1, hidden: int = 32, rounds: int = 60
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of a perceptron that learnt these pictures [rows, 8, 8]."""
    classifier = MLPClassifier((hidden,), max_iter=rounds, random_state=seed, learning_rate_init=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(images.reshape(len(images), -1), labels)
    return [np.asarray(w, np.float32) for w in classifier.coefs_], [
        np.asarray(b, np.float32) for b in classifier.intercepts_
    ]


def build(weights: list[np.ndarray], biases: list[np.ndarray]) -> bytes:
    """The ONNX file of a two-layer perceptron."""
    constants = {"w0": weights[0], "b0": biases[0], "w1": weights[1], "b1": biases[1]}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w0", "b0"], ["sum0"]),
            helper.make_node("Relu", ["sum0"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "w1", "b1"], ["sum1"]),
            helper.make_node("Softmax", ["sum1"], ["scores"], axis=1),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def with_hidden(onnx_bytes: bytes) -> bytes:
    """The same model, which also answers its layer before the last: `hidden` [rows, 32]."""
    model = onnx.load_model_from_string(onnx_bytes)
    weights = next(one for one in model.graph.initializer if one.name == "w0")
    model.graph.output.append(helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", weights.dims[1]]))
    onnx.checker.check_model(model)
    return model.SerializeToString()
