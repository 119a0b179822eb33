"""Workers and trials on accelerators: a real runtime that plays TensorRT and CUDA (tests/simulators/accelerated)."""

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from agent.serving import interpreter
from agent.serving.engines import Engines
from agent.serving.loading import ProviderError
from agent.serving.observations import WorkerDied
from agent.serving.providers import CPU, CUDA, TENSORRT
from agent.serving.supervisor import EnginesMissingError, LoadError, ModelFile
from agent.settings import ServingSettings
from agent.update import reasons
from shared.identifiers import sha256
from shared.manifest import Tensor
from tests.agent.serving.kit import Digits, endpoint, model_file, save_model, worker_pids
from tests.bench import load
from tests.simulators import accelerators

ALL = (TENSORRT, CUDA, CPU)


def on_gpu(path: Path, *, providers: tuple[str, ...] = ALL, **changes: object) -> ModelFile:
    file = model_file(path, "1.0.0")
    facts = {"providers": providers, "accepted": providers, "digest": sha256(path.read_bytes()), **changes}
    return ModelFile(file.model, file.version, "a", path, file.inputs, file.outputs, **facts)  # type: ignore[arg-type]


@pytest.fixture
def golden(tmp_path: Path, digits: Digits, digits_model: Path) -> Path:
    session = onnxruntime.InferenceSession(str(digits_model), providers=[CPU])
    scores = session.run(None, {"image": digits.images[:8]})[0]
    np.savez(tmp_path / "golden.npz", **{"input.image": digits.images[:8], "output.scores": scores})
    return tmp_path / "golden.npz"


def attempt(python: str, model: Path, golden: Path, *, providers: tuple[str, ...] = ALL, **more: Any) -> dict[str, Any]:
    request = {"model": str(model), "golden": str(golden), "providers": providers, "memory_bytes": 0}
    tolerance = {"absolute": 1e-4, "relative": 1e-3}
    done = subprocess.run(
        interpreter.command("agent.serving.trial", python=python),
        input=json.dumps({**request, "tolerance": tolerance, **more}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("plan", "asked", "took", "passed_over"),
    [
        ({}, ALL, TENSORRT, []),
        ({}, (CUDA, TENSORRT), CUDA, []),
        ({"leaves": {TENSORRT: ["Softmax"]}}, ALL, TENSORRT, []),  # CUDA helps it out
        ({"broken": {TENSORRT: "no libnvinfer"}}, ALL, CUDA, ["TensorrtExecutionProvider: Please install TensorRT"]),
        ({"leaves": {TENSORRT: ["Softmax"], CUDA: ["Softmax"]}}, ALL, CPU, ["Softmax", "Softmax"]),
        ({"missing": [TENSORRT]}, ALL, CUDA, []),
        (
            {"broken": {CUDA: "no driver"}},
            (CUDA, CPU),
            CPU,
            ["CUDAExecutionProvider: onnxruntime could not start it"],
        ),
        (
            {"failing": {CUDA: "CUDA failure 100: no CUDA-capable device is detected"}},
            (CUDA, CPU),
            CPU,
            ["CUDAExecutionProvider: CUDA failure 100: no CUDA-capable device is detected"],
        ),
        ({"leaves": {CUDA: ["Flatten"]}}, (CUDA, CPU), CUDA, []),  # computes shapes, as far as its type tells
        ({"leaves": {CUDA: ["Flatten"]}, "tells": False}, (CUDA, CPU), CPU, ["explicitly disabled by the user"]),
    ],
)
def test_the_first_provider_that_takes_the_whole_model_runs_it(
    tmp_path: Path,
    digits_model: Path,
    golden: Path,
    plan: dict[str, Any],
    asked: tuple[str, ...],
    took: str,
    passed_over: list[str],
) -> None:
    python = accelerators.interpreter(tmp_path, build_seconds=0, **plan)
    verdict = attempt(python, digits_model, golden, providers=asked)
    assert (verdict["passed"], verdict["provider"]) == (True, took), verdict
    assert len(verdict["passed_over"]) == len(passed_over)
    assert all(part in why for part, why in zip(passed_over, verdict["passed_over"], strict=True))


def test_a_model_that_only_the_cpu_could_finish_is_not_run_by_it_unasked(
    tmp_path: Path, digits_model: Path, golden: Path
) -> None:
    python = accelerators.interpreter(tmp_path, leaves={CUDA: ["Softmax"]})
    verdict = attempt(python, digits_model, golden, providers=(CUDA,))
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER")
    assert "leaves nodes to the CPU: Softmax" in verdict["detail"]
    older = accelerators.interpreter(tmp_path, leaves={CUDA: ["Softmax"]}, tells=False)
    verdict = attempt(older, digits_model, golden, providers=(CUDA,))
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER")
    assert "explicitly disabled" in verdict["detail"]


@pytest.mark.parametrize(("when", "told"), [("making", "Available memory of"), ("running", "serving.gpu_memory_bytes")])
def test_a_gpu_without_the_memory_is_no_fault_of_the_release(
    tmp_path: Path, digits_model: Path, golden: Path, when: str, told: str
) -> None:
    python = accelerators.interpreter(tmp_path, out_of_memory={when: CUDA})
    verdict = attempt(python, digits_model, golden, providers=(CUDA,))
    assert (verdict["passed"], verdict["reason"]) == (False, reasons.NoMemoryError.code)
    assert reasons.NoMemoryError.code not in reasons.PROVEN_BAD
    assert told in verdict["detail"]
    assert "bfc_arena" not in verdict["detail"]


def test_an_option_that_the_runtime_does_not_know_is_named(tmp_path: Path, digits_model: Path, golden: Path) -> None:
    python = accelerators.interpreter(tmp_path)
    verdict = attempt(python, digits_model, golden, providers=(CUDA,), options={CUDA: {"no_such_option": "1"}})
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER")
    assert (
        'CUDAExecutionProvider: provider_options_utils.h:182 Parse Unknown provider option: "no_such_option"'
        in (verdict["detail"])
    )


@pytest.mark.parametrize(("off", "took", "passed"), [({TENSORRT: 0.004}, TENSORRT, True), ({CUDA: 0.004}, CUDA, False)])
def test_the_tolerance_is_that_of_the_provider_that_ran(
    tmp_path: Path, digits_model: Path, golden: Path, off: dict[str, float], took: str, passed: bool
) -> None:
    broken = {} if took == TENSORRT else {TENSORRT: "no libnvinfer"}
    python = accelerators.interpreter(tmp_path, build_seconds=0, error=off, broken=broken)
    lax = {TENSORRT: {"absolute": 0.01, "relative": 0.0}}
    verdict = attempt(python, digits_model, golden, tolerances=lax)
    assert verdict["passed"] is passed, verdict
    assert verdict["reason"] == (None if passed else "E_GOLDEN_MISMATCH")


def test_memory_of_the_model_is_measured(tmp_path: Path, digits_model: Path, golden: Path) -> None:
    verdict = attempt(accelerators.interpreter(tmp_path, build_seconds=0), digits_model, golden)
    assert 0 < verdict["resident_bytes"] < 2**30
    assert 0 < verdict["peak_bytes"] < 2**30


async def test_a_worker_that_needs_engines_has_them_made_once_and_then_only_reads_them(
    tmp_path: Path, digits_model: Path
) -> None:
    python = accelerators.interpreter(tmp_path, build_seconds=0.6)
    file = on_gpu(digits_model)
    async with endpoint(tmp_path / "state", worker_python=python) as running:
        with pytest.raises(EnginesMissingError):
            await running.serving.load(file)
        assert await running.serving.load(file, build=True) >= 0.6
        await running.serving.route("digits", "1.0.0")
        before = accelerators.engines(tmp_path / "state")
        assert len(before) == 1
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
        died = time.monotonic()
        await running.until(lambda: bool(worker_pids()))
        await running.serving.unload("digits", "1.0.0")
        assert await running.serving.load(file) < 0.6
        assert time.monotonic() - died < 10
    assert accelerators.engines(tmp_path / "state") == before


def test_two_models_of_one_shape_do_not_get_each_others_weights(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    """The provider itself would: it names engines by the graph."""
    other = with_another_weight(digits_model, tmp_path / "other.onnx")
    python = accelerators.interpreter(tmp_path, build_seconds=0)
    settings = ServingSettings(worker_python=python)
    engines = Engines(tmp_path, settings)
    runtime = ("one",)
    shared = str(tmp_path / "shared")
    Path(shared).mkdir()
    answers = {}
    for kept in ("shared", "own"):
        for path in (digits_model, other):
            setup = engines.setup((TENSORRT,), digest=sha256(path.read_bytes()), half=False, runtime=runtime)
            assert setup.place is not None
            setup.place.prepare()
            folder = shared if kept == "shared" else str(setup.place.made)
            answers[kept, path] = scores(python, path, folder, digits)
    assert np.array_equal(answers["shared", digits_model], answers["shared", other])
    assert not np.array_equal(answers["own", digits_model], answers["own", other])


def with_another_weight(model: Path, path: Path) -> Path:
    """The same graph with another last bias, in a file of the same size."""
    data = bytearray(model.read_bytes())
    weights = numpy_helper.to_array(onnx.load(str(model)).graph.initializer[-1])
    at = data.index(weights[:1].tobytes())
    data[at : at + 4] = np.float32(9.0).tobytes()
    path.write_bytes(data)
    return path


def scores(python: str, path: Path, folder: str, digits: Digits) -> np.ndarray:
    script = (
        "import sys, json, numpy as np; from agent.serving import worker_session as w\n"
        "options = {'trt_engine_cache_enable': True, 'trt_engine_cache_path': sys.argv[2]}\n"
        "trt = 'TensorrtExecutionProvider'\n"
        "s = w.load(sys.argv[1], providers=[trt], threads=1, options={trt: options})\n"
        "x = np.frombuffer(bytes.fromhex(sys.stdin.read()), np.float32).reshape(1, 1, 8, 8)\n"
        "print(json.dumps(s.run({'image': x})['scores'].tolist()))"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [python, "-c", f"import sys; sys.path.append({root!r})\n{script}", str(path), folder],
        input=digits.images[0].tobytes().hex(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


async def test_engines_that_a_kill_left_half_made_are_made_again(tmp_path: Path, digits_model: Path) -> None:
    state, file = tmp_path / "state", on_gpu(digits_model)
    slow = accelerators.interpreter(tmp_path, build_seconds=20)
    async with endpoint(state, worker_python=slow) as running:
        loading = asyncio.ensure_future(running.serving.load(file, build=True))
        await running.until(lambda: bool(accelerators.engines(state)))
        loading.cancel()
        await asyncio.wait([loading])
    left = accelerators.engines(state)
    assert len(left) == 1
    accelerators.interpreter(tmp_path, build_seconds=0)
    async with endpoint(state, worker_python=slow) as running:
        with pytest.raises(EnginesMissingError):
            await running.serving.load(file)
        await running.serving.load(file, build=True)
    made = accelerators.engines(state)
    assert list(made) == list(left)
    assert made != left
    assert whole(state / next(iter(made)), digits_model)


def whole(engine: Path, model: Path) -> bool:
    return model.read_bytes() in engine.read_bytes()


async def test_making_engines_has_a_time_limit_of_its_own(tmp_path: Path, digits_model: Path) -> None:
    python = accelerators.interpreter(tmp_path, build_seconds=1.0)
    settings = {"worker_python": python, "load_timeout_seconds": 0.9}
    async with endpoint(tmp_path / "state", **settings) as running:
        await running.serving.load(on_gpu(digits_model), build=True)


async def test_no_engine_is_made_for_a_size_that_nobody_asked_for(tmp_path: Path, digits_model: Path) -> None:
    free = (Tensor(name="image", datatype="FP32", shape=(-1, -1)),)
    out = (Tensor(name="scores", datatype="FP32", shape=(-1, -1)),)
    save_model(tmp_path / "free.onnx", [helper.make_node("Relu", ["image"], ["scores"])], inputs=free, outputs=out)
    of_any_size = ModelFile("any", "1.0.0", "a", tmp_path / "free.onnx", free, out, (CUDA,))
    python = accelerators.interpreter(tmp_path, run_seconds=2.0)
    async with endpoint(tmp_path / "state", worker_python=python) as running:
        assert await running.serving.load(of_any_size) < 2.0
        assert await running.serving.load(on_gpu(digits_model, providers=(CUDA,))) >= 2.0  # run once before it serves


async def test_a_worker_that_comes_up_on_another_provider_than_it_was_tested_on_does_not_serve(
    tmp_path: Path, digits_model: Path
) -> None:
    python = accelerators.interpreter(tmp_path, broken={CUDA: "the driver is gone"})
    tested = on_gpu(digits_model, providers=(CUDA, CPU), provider=CUDA)
    async with endpoint(tmp_path / "state", worker_python=python) as running:
        with pytest.raises(ProviderError, match="does not come up there: none of CUDAExecutionProvider can run"):
            await running.serving.load(tested)
        with pytest.raises(LoadError, match="does not load: none of CUDAExecutionProvider can run") as untested:
            await running.serving.load(on_gpu(digits_model, providers=(CUDA,)))
        assert not isinstance(untested.value, ProviderError)
    missing = accelerators.interpreter(tmp_path, missing=[CUDA])
    async with endpoint(tmp_path / "state", worker_python=missing) as running:
        with pytest.raises(ProviderError, match="was tested on CUDAExecutionProvider and comes up on CPU"):
            await running.serving.load(tested)
        assert running.serving.stand_ins() == {}


async def test_the_cpu_stands_in_where_the_operator_lets_it_and_that_is_told(
    tmp_path: Path, digits_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    python = accelerators.interpreter(tmp_path, broken={CUDA: "the driver is gone"})
    tested = on_gpu(digits_model, providers=(CUDA, CPU), accepted=(CUDA,), provider=CUDA)
    async with endpoint(tmp_path / "state", worker_python=python, cpu_fallback=True) as running:
        await running.serving.load(tested)
        await running.serving.route("digits", "1.0.0")
        assert "runs on the CPU: CUDAExecutionProvider" in running.serving.stand_ins()["digits"]
    assert any("the CPU stands in" in record.getMessage() for record in caplog.records)


async def test_a_worker_that_lost_the_gpu_tells_its_client_and_another_one_takes_its_place(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    python = accelerators.interpreter(tmp_path, loses=3)  # the first of them before it serves
    request = load.infer("digits", {"image": digits.images[:1]})
    async with endpoint(tmp_path / "state", worker_python=python) as running:
        await running.serving.load(on_gpu(digits_model, providers=(CUDA,)))
        await running.serving.route("digits", "1.0.0")
        (before,) = worker_pids()

        def ask() -> list[int]:
            client = load.Client(running.url)
            try:
                return [client.ask(request) for _ in range(3)]
            finally:
                client.close()

        assert await asyncio.to_thread(ask) == [200, 200, 500]
        await running.until(lambda: worker_pids() not in ([], [before]))
        assert (await asyncio.to_thread(ask))[:2] == [200, 200]
    assert any(isinstance(each, WorkerDied) and each.exit == "exit 17" for each in running.seen)
