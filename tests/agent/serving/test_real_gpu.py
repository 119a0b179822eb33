"""Trials and workers on a real NVIDIA GPU, in their sandbox. Skipped by name where there is none."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from agent import doctor
from agent.serving import interpreter, providers, worker_memory
from agent.serving.engines import Engines
from agent.serving.loading import ModelFile, ProviderError
from agent.serving.providers import CPU, CUDA
from agent.settings import AgentSettings, ServingSettings
from agent.telemetry.nvml import Nvml
from agent.update.self_test import SelfTest
from shared.identifiers import sha256
from shared.manifest import Tensor, Tolerance
from shared.shadow import Terms
from tests.agent.serving.kit import Running, children_of, endpoint, pids, save_model, worker_pids
from tests.bench import gpu, gpu_models, load
from tests.bench.device import Device
from tests.bench.gpu import asking, on_cpu, used_bytes
from tests.bench.swap import swap

pytestmark = pytest.mark.skipif(not gpu.is_there(), reason="needs an NVIDIA GPU and ONNX Runtime with CUDA")

_SCRATCH_BYTES = 96 * 2**20  # of GPU memory that may come and go by itself
_HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def nets(folder: Path) -> dict[str, ModelFile]:
    """Each beside what the CPU answers to four rows: golden inputs and outputs."""
    found = {make.__name__: make(folder) for make in (gpu_models.small, gpu_models.residual, gpu_models.transformer)}
    for name, file in found.items():
        write_golden(file, folder / f"{name}.npz", rows=4)
    return {name: replace(file, digest=sha256(file.path.read_bytes())) for name, file in found.items()}


def write_golden(file: ModelFile, path: Path, *, rows: int) -> None:
    inputs = gpu_models.golden(file, rows)
    np.savez(path, **{"input.x": inputs, "output.y": on_cpu(file, inputs)})


def attempt(
    path: Path, golden: Path, *, asked: tuple[str, ...] = (CUDA,), half: bool = False, most: int | None = None,
    first: str = "", environment: dict[str, str] | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A trial as the agent runs it; `first` is done in its process before."""
    options = providers.options(asked, engines=None, half=half, gpu_memory_bytes=most)
    request = {"model": str(path), "golden": str(golden), "providers": asked, "memory_bytes": 0, "options": options}
    python, flag, script = interpreter.command("agent.serving.trial")
    done = subprocess.run(
        [python, flag, script.replace("runpy.run_module", f"{first}\nrunpy.run_module", 1)],
        input=json.dumps({**request, "tolerance": {"absolute": 1e-4, "relative": 1e-3}, **more}, default=dict),
        capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["small", "residual", "transformer"])
def test_the_self_test_runs_on_the_gpu_shut_in_and_answers_as_the_cpu_did(
    folder: Path, nets: dict[str, ModelFile], name: str
) -> None:
    verdict = attempt(nets[name].path, folder / f"{name}.npz")
    assert (verdict["passed"], verdict["provider"], verdict["passed_over"]) == (True, CUDA, []), verdict
    assert verdict["unconfined"] == []
    assert verdict["worst"]["y"]["absolute"] < 1e-4


def test_a_release_that_allows_less_exact_arithmetic_gets_tensor_cores(
    folder: Path, nets: dict[str, ModelFile]
) -> None:
    exact = attempt(nets["residual"].path, folder / "residual.npz")
    lax = {"absolute": 2e-2, "relative": 1e-1}
    rounded = attempt(nets["residual"].path, folder / "residual.npz", half=True, tolerance=lax)
    assert rounded["passed"], rounded
    assert rounded["worst"]["y"]["absolute"] > 20 * exact["worst"]["y"]["absolute"]


async def test_the_agents_self_test_knows_the_card_and_the_driver(
    tmp_path: Path, folder: Path, nets: dict[str, ModelFile]
) -> None:
    self_test = SelfTest(None, timeout_seconds=60, memory_bytes=4 * 2**30)
    runtime = await self_test.runtime()
    assert runtime is not None
    assert CUDA in runtime.providers
    assert any(part.startswith("Model: ") for part in runtime.parts)
    assert any(part.startswith("NVRM version: ") for part in runtime.parts)
    file = nets["transformer"]
    setup = Engines(tmp_path, ServingSettings()).setup((CUDA,), digest=file.digest, half=False, runtime=runtime.parts)
    found = await self_test.run(
        model=file.path,
        golden=folder / "transformer.npz",
        providers=setup.providers,
        tolerance=Tolerance(),
        setup=setup,
    )
    assert (found.passed, found.provider, found.unconfined) == (True, CUDA, ()), found


def test_the_doctor_finds_the_gpu_and_misses_it_where_it_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AgentSettings(state_dir=tmp_path)
    (found,) = [check for check in doctor.examine(settings) if check.name == "gpu"]
    assert (found.result, f"{CUDA} comes up" in found.detail) == ("ok", True), found
    for name, value in _HIDDEN.items():
        monkeypatch.setenv(name, value)
    (found,) = [check for check in doctor.examine(settings) if check.name == "gpu"]
    assert found.result == "warning"
    assert f"{CUDA}: CUDA failure 100: no CUDA-capable device is detected" in found.detail


def single(folder: Path, kind: str) -> tuple[Path, Path]:
    """A model of one such node and a Relu, and golden inputs."""
    side = (Tensor(name="x", datatype="FP32", shape=(-1, 4)),), (Tensor(name="y", datatype="FP32", shape=(-1, 4)),)
    path, golden = folder / f"{kind}.onnx", folder / f"{kind}.npz"
    nodes = [helper.make_node(kind, ["x"], ["h"], name="first"), helper.make_node("Relu", ["h"], ["y"])]
    save_model(path, nodes, inputs=side[0], outputs=side[1])
    write_golden(ModelFile(kind, "1", "a", path, *side, (CPU,)), golden, rows=2)
    return path, golden


def test_a_node_that_cuda_does_not_have_is_named(tmp_path: Path) -> None:
    path, golden = single(tmp_path, "Asinh")
    verdict = attempt(path, golden)
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER")
    assert "leaves nodes to the CPU: Asinh 'first'" in verdict["detail"]
    verdict = attempt(path, golden, asked=(CUDA, CPU))
    assert (verdict["passed"], verdict["provider"], len(verdict["passed_over"])) == (True, CPU, 1)


def test_a_gpu_that_is_hidden_is_told_in_few_words(folder: Path, nets: dict[str, ModelFile]) -> None:
    verdict = attempt(nets["small"].path, folder / "small.npz", environment=_HIDDEN)
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER")
    assert "CUDA failure 100: no CUDA-capable device is detected" in verdict["detail"]
    verdict = attempt(nets["small"].path, folder / "small.npz", asked=(CUDA, CPU), environment=_HIDDEN)
    assert (verdict["passed"], verdict["provider"]) == (True, CPU)


def test_devices_that_the_sandbox_does_not_open_are_out_of_reach(folder: Path, nets: dict[str, ModelFile]) -> None:
    if not landlock_works():
        pytest.skip("this kernel offers no Landlock")
    closed = "from agent.serving import worker_sandbox; worker_sandbox._DEVICES = ()"
    verdict = attempt(nets["small"].path, folder / "small.npz", first=closed)
    assert (verdict["passed"], verdict["reason"]) == (False, "E_PROVIDER"), verdict


def landlock_works() -> bool:
    script = (
        "from agent.serving import worker_sandbox as w; print([t for t in w.enter(readable=()) if 'Landlock' in t])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "[]"


def test_the_bound_for_gpu_memory_holds_and_is_told(folder: Path, nets: dict[str, ModelFile]) -> None:
    path = nets["residual"].path
    too_little = attempt(path, folder / "residual.npz", most=16 * 2**20)
    assert (too_little["passed"], too_little["reason"]) == (False, "E_MEMORY"), too_little
    assert "Available memory of" in too_little["detail"]
    write_golden(nets["residual"], folder / "many.npz", rows=32)
    for_one = attempt(path, folder / "many.npz", most=64 * 2**20)
    assert (for_one["passed"], for_one["reason"]) == (False, "E_MEMORY"), for_one
    assert "serving.gpu_memory_bytes" in for_one["detail"]
    assert attempt(path, folder / "residual.npz", most=512 * 2**20)["passed"]


def test_memory_of_a_card_is_not_taken_for_the_machines(folder: Path, nets: dict[str, ModelFile]) -> None:
    code = "from agent.serving import worker_memory; print(worker_memory.unified())"
    shares = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    verdict = attempt(nets["transformer"].path, folder / "transformer.npz")
    assert 0 < verdict["resident_bytes"] <= verdict["peak_bytes"] < 2 * 2**30
    if shares == "False":
        lost = 4 * 2**30
        before, after = worker_memory.Memory(0, 1, 1, lost), worker_memory.Memory(0, 1, 1, 0)
        assert worker_memory.added(before, after, unified=False) == (1, 0)


def test_the_driver_writes_nothing_but_where_it_may(tmp_path: Path, folder: Path, nets: dict[str, ModelFile]) -> None:
    home, engines = tmp_path / "home", tmp_path / "engines"
    home.mkdir()
    engines.mkdir()
    environment = {"HOME": str(home)}
    for writable in ([], [str(engines)]):
        verdict = attempt(nets["small"].path, folder / "small.npz", environment=environment, writable=writable)
        assert verdict["passed"], verdict
        assert list(home.iterdir()) == []


def card_bytes() -> int:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvidia-smi")
    return used_bytes()


async def answers(running: Running, file: ModelFile, inputs: np.ndarray, version: str = "1") -> np.ndarray:
    request = load.infer(file.model, {"x": inputs}, version=version, binary_output=False)

    answer = await asyncio.to_thread(asked_once, running.url, request)
    return answer.reshape(len(inputs), -1)


async def test_workers_share_the_card_and_the_fork_server_never_touches_it(
    tmp_path: Path, nets: dict[str, ModelFile]
) -> None:
    async with endpoint(tmp_path) as running:
        for file in nets.values():
            await running.serving.load(file)
            await running.serving.route(file.model, "1")
        assert len(worker_pids()) == len(nets)
        for file in nets.values():
            for rows in (1, 3):
                inputs = gpu_models.golden(file, rows)
                assert np.allclose(await answers(running, file, inputs), on_cpu(file, inputs), atol=1e-4, rtol=1e-3)
        (forks,) = pids("fork_server")
        assert not any("libcuda" in line or "nvidia" in line for line in maps(forks))
        for pid in worker_pids():
            assert any("libcuda" in line for line in maps(pid))
            assert filtered(pid)


def filtered(pid: int) -> bool:
    return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()


def maps(pid: int) -> list[str]:
    files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    return [*Path(f"/proc/{pid}/maps").read_text().splitlines(), *files]


async def test_nvidias_own_client_is_answered_from_the_gpu(tmp_path: Path, nets: dict[str, ModelFile]) -> None:
    triton = pytest.importorskip("tritonclient.http", exc_type=ImportError)
    file = nets["small"]
    inputs = gpu_models.golden(file, 2)

    def visit(url: str) -> np.ndarray:
        with triton.InferenceServerClient(url) as client:
            tensor = triton.InferInput("x", list(inputs.shape), "FP32")
            tensor.set_data_from_numpy(inputs)
            return np.asarray(client.infer("small", [tensor]).as_numpy("y"))

    async with endpoint(tmp_path) as running:
        await running.serving.load(file)
        await running.serving.route("small", "1")
        found = await asyncio.to_thread(visit, running.url)
    assert np.allclose(found, on_cpu(file, inputs), atol=1e-4, rtol=1e-3)


def test_a_worker_killed_at_work_loses_no_request_and_gives_the_card_back(
    tmp_path: Path, nets: dict[str, ModelFile]
) -> None:
    file = nets["residual"]
    before = card_bytes()
    request = load.infer("residual", {"x": gpu_models.golden(file, 8)})
    with Device(tmp_path / "state") as device:
        device.load(file)
        with asking(tmp_path, device.tcp, request, rate=50.0) as seen:
            kept = card_bytes()
            for _ in range(2):
                time.sleep(0.5)
                (worker,) = workers_of(device)
                os.kill(worker, signal.SIGKILL)
                time.sleep(2.0)
                assert [pid for pid in workers_of(device) if pid != worker]
            after = card_bytes()
    assert seen[0].failed == 0
    assert after < kept + _SCRATCH_BYTES
    deadline = time.monotonic() + 10
    while card_bytes() > before + _SCRATCH_BYTES and time.monotonic() < deadline:
        time.sleep(0.1)
    assert card_bytes() <= before + _SCRATCH_BYTES


def workers_of(device: Device) -> list[int]:
    return list(children_of(device.processes()["fork_server"]))


def test_swaps_on_the_card_fail_no_request_and_keep_no_memory(tmp_path: Path, nets: dict[str, ModelFile]) -> None:
    other = replace(gpu_models.small(tmp_path, seed=2), version="2")
    pair = [nets["small"], other]
    request = load.infer("small", {"x": gpu_models.golden(other, 1)})
    with Device(tmp_path / "state") as device:
        device.load(pair[0])
        with asking(tmp_path, device.tcp, request, rate=200.0) as seen:
            for number in range(6):
                swap(device, pair[(number + 1) % 2], pair[number % 2])
                if number == 1:
                    before = card_bytes()
            after = card_bytes()
    assert seen[0].failed == 0
    assert len(seen[0].statuses) > 200
    assert after < before + _SCRATCH_BYTES


def test_a_candidate_in_the_shadow_shares_the_card_and_agrees_with_itself(
    tmp_path: Path, nets: dict[str, ModelFile]
) -> None:
    request = load.infer("small", {"x": gpu_models.golden(nets["small"], 1)})
    with Device(tmp_path / "state") as device, load.elsewhere() as run:
        device.load(nets["small"])
        device.shadow(replace(nets["small"], version="2"), Terms(share=1.0, hold_seconds=10.0))
        asked = run(load.paced, device.unix, [request], rate=100.0, seconds=1.5).result()
        time.sleep(1.5)
        found = device.end_shadow()
    assert asked.failed == 0
    assert (found.crashes, found.failed) == (0, 0)
    assert found.samples == found.agreed > 50


def test_requests_that_are_joined_run_as_one_and_each_gets_its_own_answer(
    tmp_path: Path, nets: dict[str, ModelFile]
) -> None:
    file = nets["small"]
    settings = {"models": {"small": {"max_batch_rows": 8, "batch_delay_microseconds": 2000}}}
    rows = [gpu_models.golden(file, 1, seed=seed) for seed in range(8)]
    requests = [load.infer("small", {"x": row}, binary_output=False) for row in rows]
    with Device(tmp_path / "state", **settings) as device:
        device.load(file)
        with ThreadPoolExecutor(len(rows)) as pool:
            found = list(pool.map(lambda request: asked_once(device.unix, request), requests * 4))
    for row, answer in zip(rows * 4, found, strict=True):
        assert np.allclose(answer, on_cpu(file, row), atol=1e-4, rtol=1e-3)


def asked_once(address: str, request: bytes) -> np.ndarray:
    client = load.Client(address)
    try:
        assert client.ask(request) == 200, client.body
        (output,) = json.loads(client.body)["outputs"]
        return np.array(output["data"], np.float32)
    finally:
        client.close()


async def test_a_version_that_was_tested_on_the_gpu_does_not_serve_without_it_unless_the_cpu_may_stand_in(
    tmp_path: Path, nets: dict[str, ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _HIDDEN.items():
        monkeypatch.setenv(name, value)
    tested = replace(nets["small"], provider=CUDA, accepted=(CUDA,))
    async with endpoint(tmp_path / "strict") as running:
        with pytest.raises(ProviderError, match=r"does not come up there.*CUDA failure 100"):
            await running.serving.load(tested)
    may = replace(tested, providers=(CUDA, CPU))
    async with endpoint(tmp_path / "lax", cpu_fallback=True) as running:
        await running.serving.load(may)
        await running.serving.route("small", "1")
        assert "runs on the CPU: CUDAExecutionProvider: CUDA failure 100" in running.serving.stand_ins()["small"]


def test_the_management_library_tells_of_the_card() -> None:
    pytest.importorskip("pynvml")
    found = Nvml().read()
    assert found.gpu_ratio is not None
    assert 0 <= found.gpu_ratio <= 1
    assert 0 < found.temperatures_celsius["gpu"] < 120
    assert 0 < found.rails_watts["GPU"] < 2000
