"""A model of Triton's Python backend that runs model.onnx beside it."""

from pathlib import Path

# isort: off
import triton_python_backend_utils as backend  # first: it knows where the packages lie (peers.Triton)
import onnxruntime


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def execute(self, requests):
        responses = []
        for request in requests:
            arrays = {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            found = self._session.run(self._outputs, arrays)
            tensors = [backend.Tensor(name, array) for name, array in zip(self._outputs, found, strict=True)]
            responses.append(backend.InferenceResponse(output_tensors=tensors))
        return responses
