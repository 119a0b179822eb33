"""Which providers may run a version, and what they are told."""

import pytest

from agent.serving import providers
from agent.serving.providers import CPU, CUDA, TENSORRT

ALL = (TENSORRT, CUDA, CPU)


@pytest.mark.parametrize(
    ("accepted", "allowed", "fallback", "found"),
    [
        (ALL, None, False, ALL),
        ((CUDA, TENSORRT), None, False, (CUDA, TENSORRT)),
        (ALL, (CPU, CUDA), False, (CPU, CUDA)),
        ((CUDA,), None, True, (CUDA, CPU)),
        (ALL, None, True, ALL),
        ((CUDA,), (CPU,), False, ()),
        ((CUDA,), (CPU,), True, (CPU,)),
    ],
)
def test_the_order_is_the_operators_or_else_the_releases(
    accepted: tuple[str, ...], allowed: tuple[str, ...] | None, fallback: bool, found: tuple[str, ...]
) -> None:
    assert providers.candidates(accepted, allowed=allowed, cpu_fallback=fallback) == found


@pytest.mark.parametrize(
    ("measured", "fallback", "found"),
    [
        (None, False, ALL),
        (TENSORRT, False, (TENSORRT, CUDA)),
        (TENSORRT, True, ALL),
        (CUDA, False, (CUDA,)),
        (CPU, False, (CPU,)),
        (CPU, True, (CPU,)),
        ("DmlExecutionProvider", False, ALL),
    ],
)
def test_a_worker_keeps_to_what_was_tested(measured: str | None, fallback: bool, found: tuple[str, ...]) -> None:
    assert providers.to_serve(ALL, measured=measured, cpu_fallback=fallback) == found


def test_options_are_those_of_the_providers_that_are_asked() -> None:
    assert providers.options((CPU,), engines=None, half=True, gpu_memory_bytes=1) == {}
    found = providers.options(ALL, engines="here", half=True, gpu_memory_bytes=7)
    assert found[CUDA] == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": True,
        "gpu_mem_limit": 7,
    }
    assert found[TENSORRT] == {
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": "here",
        "trt_timing_cache_enable": True,
        "trt_max_workspace_size": 7,
    }
    assert providers.options((TENSORRT,), engines=None, half=False, gpu_memory_bytes=None) == {
        TENSORRT: {"trt_fp16_enable": False}
    }


def test_cuda_rounds_factors_only_for_releases_that_allow_it() -> None:
    exact = providers.options((CUDA,), engines=None, half=False, gpu_memory_bytes=None)
    assert exact[CUDA]["use_tf32"] is False


def test_the_tolerance_is_looked_up_by_the_most_exact_name() -> None:
    assert providers.tolerance_names(TENSORRT, half=True) == ("TensorrtExecutionProvider/fp16", TENSORRT, "default")
    assert providers.tolerance_names(TENSORRT, half=False) == (TENSORRT, "default")
    assert providers.tolerance_names(CUDA, half=True) == ("TensorrtExecutionProvider/fp16", CUDA, "default")
    assert providers.tolerance_names(CUDA, half=False) == (CUDA, "default")
    assert providers.tolerance_names(CPU, half=True) == (CPU, "default")


def test_the_cpu_stands_in_only_where_something_else_was_wanted() -> None:
    assert providers.stand_in(CUDA, passed_over=["TensorRT: broken"], accepted=ALL) is None
    assert providers.stand_in(CPU, passed_over=[], accepted=(CPU,)) is None
    why = providers.stand_in(CPU, passed_over=["CUDA: no driver"], accepted=ALL)
    assert why == "runs on the CPU: CUDA: no driver"
    assert "is installed" in (providers.stand_in(CPU, passed_over=[], accepted=(CUDA,)) or "")
