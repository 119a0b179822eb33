"""An onnxruntime that opens whatever path a model names for its weights, as the real one did up to 1.23.

It goes by the real one's name, so that a self-test finds it first on the path of its interpreter, and can do what
`agent.serving.worker_session` asks of it: one input `x`, one output `y`, their product with the weights between.
"""

import os
import re

import numpy as np


class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass


class _Value:
    def __init__(self, name, shape):
        self.name, self.shape, self.type = name, shape, "tensor(float)"


class InferenceSession:
    def __init__(self, path, options, providers, **_):
        with open(path, "rb") as file:
            found = re.search(rb"location\x12(.)", data := file.read(), re.DOTALL)
        location = data[found.end() : found.end() + found[1][0]].decode()
        with open(os.path.join(os.path.dirname(path), location), "rb") as file:
            self._weights = np.frombuffer(file.read(96), np.float32).reshape(8, 3)

    def get_providers(self):
        return ["CPUExecutionProvider"]

    def get_inputs(self):
        return [_Value("x", ["n", 8])]

    def get_outputs(self):
        return [_Value("y", ["n", 3])]

    def run(self, names, inputs):
        return [inputs["x"] @ self._weights]


def get_available_providers():
    return ["CPUExecutionProvider"]
