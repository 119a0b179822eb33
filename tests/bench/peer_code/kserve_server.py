"""KServe's server with models for onnxruntime: HTTP port, gRPC port, JSON of name -> path."""

import json
import sys

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class OnnxModel(Model):
    def __init__(self, name, path):
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        arrays = {entry.name: entry.as_numpy() for entry in payload.inputs}
        outputs = []
        for name, array in zip(self._outputs, self._session.run(self._outputs, arrays), strict=True):
            output = InferOutput(name=name, shape=list(array.shape), datatype="FP32")
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    models = [OnnxModel(name, path) for name, path in json.loads(sys.argv[3]).items()]
    server = ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1, enable_docs_url=False)
    server.start(models)
