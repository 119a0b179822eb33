"""Which execution providers may run a version, best first, and how each of them is set up.

A provider takes a whole model or is passed over; the CPU stands in for an accelerator only where the release names
it or the operator said so (`serving.cpu_fallback`).

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.manifest import HALF_PRECISION

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Options = Mapping[str, Mapping[str, str | int | bool]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an interpreter with onnxruntime has (worker_facts)."""

    providers: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # versions, driver, GPU: all that compiled engines depend on


def candidates(accepted: Sequence[str], *, allowed: Sequence[str] | None, cpu_fallback: bool) -> tuple[str, ...]:
    """Providers that release and operator both accept: in the operator's order if he gave one, else the release's."""
    fit = tuple(name for name in (allowed or accepted) if name in accepted)
    return (*fit, CPU) if cpu_fallback and CPU not in fit else fit


def to_serve(fit: Sequence[str], *, measured: str | None, cpu_fallback: bool) -> tuple[str, ...]:
    """What a worker may use of the candidates `fit`: what the self-test ran on, accelerators behind it as helpers,
    and no other one in its place (but the CPU, where that is set)."""
    if measured is None or measured not in fit:
        return tuple(fit)
    behind = [name for name in fit[fit.index(measured) + 1 :] if name != CPU] if measured != CPU else []
    return (measured, *behind, *((CPU,) if cpu_fallback and measured != CPU else ()))


def builds(fit: Sequence[str]) -> bool:
    """Whether one of them compiles the model for this very GPU, which may take many minutes."""
    return TENSORRT in fit


def options(fit: Sequence[str], *, engines: str | None, half: bool, gpu_memory_bytes: int | None) -> Options:
    """Provider -> its options, in the words of ONNX Runtime. Only long-known ones: older wheels refuse the rest.

    Args:
        engines: folder for compiled engines and timings; one for each model, since the provider names its files by
            the graph without its weights.
        half: less exact arithmetic will do: TensorRT in 16 bits, CUDA in TF32, which rounds factors to 11 bits.
        gpu_memory_bytes: upper bound of the arena (CUDA) and of scratch memory while building (TensorRT).
    """
    found: dict[str, dict[str, str | int | bool]] = {}
    if CUDA in fit:
        found[CUDA] = {
            "arena_extend_strategy": "kSameAsRequested",  # the other one doubles, and memory may be shared
            "cudnn_conv_algo_search": "HEURISTIC",  # trying all of them takes long at each new number of rows (ADR 36)
            "use_tf32": half,
        }
        if gpu_memory_bytes is not None:
            found[CUDA]["gpu_mem_limit"] = gpu_memory_bytes
    if TENSORRT in fit:
        found[TENSORRT] = {"trt_fp16_enable": half}
        if engines is not None:
            found[TENSORRT] |= {
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": engines,
                "trt_timing_cache_enable": True,  # lies beside the engines
            }
        if gpu_memory_bytes is not None:
            found[TENSORRT]["trt_max_workspace_size"] = gpu_memory_bytes
    return found


def tolerance_names(provider: str, *, half: bool) -> tuple[str, ...]:
    """Under which names a release may state how far off answers of `provider` may be, the most exact one first."""
    precise = (HALF_PRECISION,) if half and provider in (TENSORRT, CUDA) else ()
    return (*precise, provider, "default")


def stand_in(provider: str, *, passed_over: Sequence[str], accepted: Sequence[str]) -> str | None:
    """Why the CPU runs a version that should run on an accelerator; None when it does not, or is what was asked."""
    if provider != CPU or (CPU in accepted and not passed_over):
        return None
    why = "; ".join(passed_over) or "no accelerator that the release names is installed"
    return f"runs on the CPU: {why}"
