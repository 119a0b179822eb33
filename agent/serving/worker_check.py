"""Do the accelerators of this interpreter come up? Each is given a tiny model, shut in as a worker would be.

    python -m agent.serving.worker_check     {provider: why not, or nothing} on stdout

That onnxruntime names a provider only says what it was built with. Python 3.10 syntax: runs under the interpreter that
has onnxruntime.

I/O: disk, process.
"""

import json
import os

from agent.serving import worker_sandbox

ACCELERATORS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
#: A Relu of one number, as an ONNX file.
_MODEL = (
    b'\x08\x08\x12\x00:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b'
    b"\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def tried() -> "dict[str, str]":
    """Provider -> why it does not come up; empty: it does. Only those that this onnxruntime was built with."""
    import numpy as np
    import onnxruntime as ort

    from agent.serving import worker_placement, worker_session

    found: "dict[str, str]" = {}
    for name in ACCELERATORS:
        if name not in ort.get_available_providers():
            continue
        try:
            worker_session.load(_MODEL, providers=[name], threads=1).run({"x": np.ones(1, np.float32)})
            found[name] = ""
        except worker_session.NoProviderError as error:
            found[name] = "; ".join(error.reasons)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common root
            found[name] = f"{name}: {worker_placement.plain(error)}"
    return found


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for the answer
    worker_sandbox.enter(readable=(), accelerator=True)
    json.dump(tried(), answer)
    answer.flush()
    os._exit(0)  # no destructor of a driver may hang


if __name__ == "__main__":
    main()
