"""A runtime of MLServer for onnxruntime."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        arrays = {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs}
        found = self._session.run(self._outputs, arrays)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self._outputs, found, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
