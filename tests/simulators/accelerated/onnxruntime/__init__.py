"""The real onnxruntime, as it would be with TensorRT and CUDA: put this folder first on an interpreter's path.

Models are computed by the real CPU provider. What is played is what the accelerators' providers do around that, as
CUDA did on a real GPU (tests/agent/serving/test_real_gpu.py) and as the documentation and issues of TensorRT
describe it: options that they do not know are refused, with many words; CUDA without its libraries is dropped with a
warning, TensorRT without its own is an error; the driver asks the kernel for what a sandbox may refuse; nodes that a
provider cannot take go to the next one, at last to the CPU, and the session tells who got which, or refuses where
that is forbidden; TensorRT makes engines, slowly and piece by piece, names them by the graph without its weights, and
takes whatever it finds under that name. Answers come from the weights in the engine, and are off by what
FLOTILLA_ACCELERATED says:

    {"build_seconds": 0.2, "broken": {provider: why}, "leaves": {provider: [node types]}, "error": {provider: offset},
     "fp16_error": offset, "missing": [providers], "run_seconds": 0.0, "keeps": true, "version": "1.0",
     "failing": {provider: CUDA's error}, "out_of_memory": {"making" or "running": provider},
     "loses": runs after which CUDA fails for good, in each process,
     "tells": true, false: an older one, whose session does not tell who got which node}
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
import time
import warnings

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PLAN = json.loads(os.environ.get("FLOTILLA_ACCELERATED", "{}"))
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_KNOWN = {
    CUDA: {
        "device_id",
        "arena_extend_strategy",
        "gpu_mem_limit",
        "cudnn_conv_algo_search",
        "do_copy_in_default_stream",
        "use_tf32",
        "enable_cuda_graph",
    },
    TENSORRT: {
        *("device_id", "trt_max_workspace_size", "trt_fp16_enable", "trt_int8_enable", "trt_engine_cache_enable"),
        *("trt_engine_cache_path", "trt_timing_cache_enable", "trt_min_subgraph_size"),
    },
    CPU: set(),
}
_STRICT, _RECORD = "session.disable_cpu_ep_fallback", "session.record_ep_graph_assignment_info"
_PLACE = "/onnxruntime_src/onnxruntime/core/"
_CALL = (
    f"{_PLACE}providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, onnxruntime::common::Status> "
    "onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) [with ERRTYPE = "
    "cudaError; bool THRW = true; std::conditional_t<THRW, void, common::Status> = void] {} ; GPU=-1 ; hostname=vm ; "
    "file=onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=245 ; expr=cudaSetDevice(info_.device_id);"
)
_ARENA = (
    f"[ONNXRuntimeError] : 1 : FAIL : {_PLACE}framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Available memory of 235008 is smaller than requested "
    "bytes of 589824"
)
_BOOLEAN = {"trt_fp16_enable", "trt_int8_enable", "trt_engine_cache_enable", "trt_timing_cache_enable"}
_PIECES = 20
_MAGIC = b"ENGINE:"

sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder or ".") != _HERE]
del sys.modules["onnxruntime"]
import onnxruntime as real  # noqa: E402 - now the next one on the path

sys.path.insert(0, _HERE)
_Session = real.InferenceSession


class Fail(Exception):  # noqa: N818 - its name in onnxruntime
    """As onnxruntime's own: no error that its fallback would catch."""


class Node:
    """One of a session's assignment."""

    def __init__(self, kind):
        self.op_type, self.name, self.domain = kind, "", ""


class Part:
    """What one provider got."""

    def __init__(self, provider, kinds):
        self.ep_name, self._nodes = provider, [Node(kind) for kind in kinds]

    def get_nodes(self):
        return self._nodes


class InferenceSession:
    """A session whose first provider is played."""

    def __init__(self, path, sess_options=None, providers=(), enable_fallback=True, **_):
        asked = [entry if isinstance(entry, tuple) else (entry, {}) for entry in providers]
        strict = _entry(sess_options, _STRICT) == "1"
        self._runs = 0
        self._tells = _entry(sess_options, _RECORD) == "1"
        if strict and CPU in [name for name, _ in asked]:
            raise Fail("Conflicting session configuration: explicitly added the CPU EP to the session")
        for name, options in asked:
            _check(name, options)
        model = _read(path)
        usable = [(name, options) for name, options in asked if _starts(name)]
        self._left = _left_over(model, [name for name, _ in usable])
        if strict and self._left:
            raise Fail(
                "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default "
                "CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
            )
        self._names = [*(name for name, _ in usable if name != CPU), CPU]
        if _PLAN.get("out_of_memory", {}).get("making") == self._names[0]:
            raise Fail(_ARENA)
        self._off = _PLAN.get("error", {}).get(self._names[0], 0.0)
        if self._names[0] == TENSORRT:
            options = dict(usable)[TENSORRT]
            self._off += _PLAN.get("fp16_error", 0.0) if options.get("trt_fp16_enable") else 0.0
            model = _engine(model, options)
        self._session = _Session(model, _plain(sess_options), providers=[CPU])

    def get_providers(self):
        return list(self._names)

    def get_inputs(self):
        return self._session.get_inputs()

    def get_outputs(self):
        return self._session.get_outputs()

    def get_provider_graph_assignment_info(self):
        if not self._tells:
            raise Fail("Session configuration entry session.record_ep_graph_assignment_info must be set to 1")
        return [Part(self._names[0], ["Gemm"]), *([Part(CPU, self._left)] if self._left else [])]

    def run(self, names, inputs):
        self._runs += 1
        if self._names[0] == CUDA and self._runs > _PLAN.get("loses", self._runs):
            raise Fail(_CALL.format("CUDA failure 700: an illegal memory access was encountered"))
        if _PLAN.get("out_of_memory", {}).get("running") == self._names[0]:
            raise Fail(_ARENA)
        time.sleep(_PLAN.get("run_seconds", 0.0))
        found = self._session.run(names, inputs)
        return [array + array.dtype.type(self._off) if array.dtype.kind == "f" else array for array in found]


def _read(path):
    if isinstance(path, bytes):
        return path
    with open(path, "rb") as file:
        return file.read()


def _entry(options, name):
    try:
        return options.get_session_config_entry(name)
    except (AttributeError, RuntimeError):
        return None


def _plain(options):
    """The same without what the real session would refuse."""
    found = real.SessionOptions()
    if options is not None:
        found.intra_op_num_threads = options.intra_op_num_threads
        found.inter_op_num_threads = options.inter_op_num_threads
    return found


def _starts(name):
    """Whether this provider comes up; its driver asks for what it needs."""
    why = _PLAN.get("broken", {}).get(name)
    if why is not None and name == TENSORRT:
        raise RuntimeError(
            "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
            "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
            f"Please install TensorRT libraries as mentioned in the GPU requirements page ({why})"
        )
    if why is not None:
        warnings.warn(f"Failed to create {name}. Require cuDNN 9.* and CUDA 13.*. ({why})", stacklevel=2)
        return False
    if name in _PLAN.get("failing", {}):
        raise RuntimeError(_CALL.format(_PLAN["failing"][name]))
    if name != CPU:
        try:
            _driver()
        except OSError as error:
            text = "CUDA failure 304: OS call failed or operation not supported on this OS"
            raise RuntimeError(_CALL.format(text)) from error
    return True


def _driver():
    """What that of a real GPU asked for; each of them refused was its end."""
    os.close(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))  # one of its devices
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
        file.write("cuda-EvtHandlr")
    with contextlib.suppress(FileNotFoundError):
        os.unlink("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ear:
        ear.bind(f"\0cuda-uvmfd-{os.getpid()}-{threading.get_native_id()}")
        ear.listen()


def _check(name, options):
    for key, value in options.items():
        if key not in _KNOWN[name]:
            raise RuntimeError(
                f"{_PLACE}providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
                "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions("
                "const onnxruntime::ProviderOptions&) "
                "[ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:182 Parse Unknown provider option: "
                f'"{key}".'
            )
        if key in _BOOLEAN and str(value) not in ("True", "true", "False", "false"):
            raise RuntimeError(f"The value for the key '{key}' should be 'True' or 'False'")


def _left_over(model, names):
    """Node types that none of the accelerators takes."""
    kinds = {kind for name in names for kind in _PLAN.get("leaves", {}).get(name, [])}
    takers = {kind: [name for name in names if kind not in _PLAN.get("leaves", {}).get(name, [])] for kind in kinds}
    there = sorted(kind for kind in kinds if not takers[kind] and kind.encode() in model)
    return there if [name for name in names if name != CPU] else ["everything"]


def _engine(model, options):
    """The engine's weights: of the one in the cache if there is any, whatever model it was made from."""
    if not options.get("trt_engine_cache_enable") or not _PLAN.get("keeps", True):  # a full disk is no error to it
        _build(None, model)
        return model
    graph = hashlib.sha256(str(len(model)).encode()).hexdigest()[:16]  # sees shapes, not weights
    half = "_fp16" if options.get("trt_fp16_enable") else ""
    path = os.path.join(
        options["trt_engine_cache_path"], f"TensorrtExecutionProvider_TRTKernel_graph_{graph}{half}.engine"
    )
    if not os.path.exists(path):
        _build(path, model)
        return model
    with open(path, "rb") as file:
        found = file.read()
    size = int.from_bytes(found[len(_MAGIC) : len(_MAGIC) + 8], "big")
    weights = found[len(_MAGIC) + 8 :]
    if not found.startswith(_MAGIC) or len(weights) != size:
        raise Fail("TensorRT EP could not deserialize engine from cache: " + path)
    return weights


def _build(path, model):
    engine = _MAGIC + len(model).to_bytes(8, "big") + model
    step = -(-len(engine) // _PIECES)
    for start in range(0, len(engine), step):
        if path is not None:
            with open(path, "ab") as file:
                file.write(engine[start : start + step])
        time.sleep(_PLAN.get("build_seconds", 0.2) / _PIECES)


def get_available_providers():
    return [name for name in (TENSORRT, CUDA, CPU) if name not in _PLAN.get("missing", [])]


if not _PLAN.get("tells", True):
    del InferenceSession.get_provider_graph_assignment_info
real.InferenceSession = InferenceSession
real.get_available_providers = get_available_providers
real.__version__ = f"{real.__version__}+accelerated.{_PLAN.get('version', '1.0')}"
