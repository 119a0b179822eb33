"""A digits classifier, trained on the spot, as a real ONNX file."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from tests.agent.serving.kit import Digits, save_model


@pytest.fixture(scope="session")
def digits() -> Digits:
    bundle = load_digits()
    return Digits((bundle.images / 16).astype(np.float32)[:, None], bundle.target)


@pytest.fixture(scope="session")
def digits_model(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = MLPClassifier((32,), max_iter=60, random_state=1, tol=1e-2)
    trained.fit(digits.images.reshape(len(digits.images), -1), digits.labels)
    nodes = [helper.make_node("Flatten", ["image"], ["h0"], axis=1)]
    weights = []
    last = len(trained.coefs_) - 1
    for layer, (matrix, bias) in enumerate(zip(trained.coefs_, trained.intercepts_, strict=True)):
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{layer}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"g{layer}"]))
        kind, out = ("Softmax", "scores") if layer == last else ("Relu", f"h{layer + 1}")
        nodes.append(helper.make_node(kind, [f"g{layer}"], [out]))
    path = tmp_path_factory.mktemp("models") / "digits.onnx"
    save_model(path, nodes, weights)
    return path
