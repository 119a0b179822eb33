"""What may stay on the CPU beside an accelerator, and errors in few words: texts as a real GPU's runtime gave them."""

import pytest

from agent.serving import worker_placement

_SOURCE = "/onnxruntime_src/onnxruntime/core"
_CALL = (
    f"{_SOURCE}/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime"
    "::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; "
    "bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, common::Status> = void] "
)
_ALLOCATE = (
    f"{_SOURCE}/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
    "onnxruntime::Stream*) "
)


_HIDDEN = "CUDA failure 100: no CUDA-capable device is detected"
_BOUND = "Available memory of 235008 is smaller than requested bytes of 589824"
_FULL = "Failed to allocate memory for requested buffer of size 960000000000"
_RUNNING = "Non-zero status code returned while running Expand node. Name:'' Status Message: "
_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
    "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
)
_INSTALL = "Please install TensorRT libraries as mentioned in the GPU requirements page."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{_CALL}{_CALL}{_HIDDEN} ; GPU=-1 ; hostname=vm ; file=a.cc ; line=245 ; expr=cudaSetDevice(id); ", _HIDDEN),
        (f"[ONNXRuntimeError] : 1 : FAIL : At first: {_ALLOCATE}{_BOUND}\n", f"At first: {_BOUND}"),
        (f"[ONNXRuntimeError] : 1 : FAIL : {_RUNNING}{_ALLOCATE}{_FULL}\n", f"{_RUNNING}{_FULL}"),
        (f"{_TENSORRT}{_INSTALL}\n", _INSTALL),
        ("", "RuntimeError"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_an_error_is_told_without_the_places_in_the_runtimes_source(text: str, found: str) -> None:
    assert worker_placement.plain(RuntimeError(text)) == found


def test_only_computing_shapes_may_stay_on_the_cpu() -> None:
    assert worker_placement.left_over([]) == ""
    assert worker_placement.left_over([("Gather", "a"), ("Concat", ""), ("Cast", "c")]) == ""
    assert worker_placement.left_over([("Acosh", "hyper"), ("Gather", ""), ("Det", ""), ("Det", "")]) == (
        "Acosh 'hyper', Det"
    )
    many = worker_placement.left_over([("Det", f"n{number}") for number in range(8)])
    assert many.endswith("Det 'n4' and 3 more")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (_BOUND, True),
        (_FULL, True),
        ("CUDA failure 2: out of memory", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", True),
        (_HIDDEN, False),
    ],
)
def test_a_lack_of_gpu_memory_is_known_by_its_words(text: str, short: bool) -> None:
    assert worker_placement.short_of_memory(text) is short


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("CUDA failure 719: unspecified launch failure", True),
        ("CUDA failure 2: out of memory", False),
        ("CUDNN failure 9: CUDNN_STATUS_NOT_SUPPORTED", False),
        ("the model says 700", False),
    ],
)
def test_errors_after_which_a_process_cannot_use_the_gpu_are_known(text: str, lost: bool) -> None:
    assert worker_placement.lost(text) is lost
