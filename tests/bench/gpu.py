"""A GPU behind the endpoint: what answering adds, new numbers of rows, exactness, swaps and memory on the card.

python -m tests.bench.gpu [--quick] [--json]

Needs an NVIDIA GPU with nvidia-smi and ONNX Runtime with CUDA. Three networks (tests.bench.gpu_models): a small one,
the shape of a ResNet-18, a transformer. Every figure has what it is compared with beside it, from the same run.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from agent.serving import providers, worker_session
from agent.serving.providers import CPU, CUDA
from agent.serving.supervisor import ModelFile
from fleet.releases.packing import TOLERANCE
from tests.bench import gpu_models, load
from tests.bench.device import Device
from tests.bench.document import Result, arguments, median, tell
from tests.bench.swap import Window, gap_ms, idle, memory_bytes, swap

RATE: Final = 200.0
PAUSE_SECONDS: Final = 0.0005  # between two runs, about what a request takes on its ways: processors and card cool down
GAP_MS: Final = 20.0  # of one swap, beyond what is usual without any: as on the processor
_MIB: Final = 2**20
_THERE: Final = "import ctypes, sys; sys.exit(ctypes.CDLL('libcuda.so.1').cuInit(0))"


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    if not is_there():
        print("this machine has no NVIDIA GPU, or this interpreter no ONNX Runtime with CUDA", file=sys.stderr)
        return 2
    seconds, swaps = (1.0, 10) if asked.quick else (4.0, 50)
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        folder = Path(name)
        nets = [make(folder) for make in (gpu_models.small, gpu_models.residual, gpu_models.transformer)]
        results = [row for file in nets for row in answering(file, folder, seconds)]
        results += [row for file in nets[:2] for row in new_numbers_of_rows(file)]
        results += [exactness(file) for file in nets]
        results += swapping(folder, swaps)
    return tell("gpu", results, as_json=asked.json)


def is_there() -> bool:
    """Whether CUDA can be used here; found out in another process, since this one may fork."""
    if CUDA not in onnxruntime.get_available_providers():
        return False
    return subprocess.run([sys.executable, "-c", _THERE], capture_output=True, check=False).returncode == 0


def used_bytes() -> int:
    """GPU memory that is taken, by whomever."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) * _MIB


def on_cpu(file: ModelFile, inputs: np.ndarray) -> np.ndarray:
    """What the CPU answers, in 32 bits."""
    return np.asarray(onnxruntime.InferenceSession(str(file.path), providers=[CPU]).run(["y"], {"x": inputs})[0])


def session(file: ModelFile, *, half: bool = False, **more: Any) -> worker_session.Session:
    """As a worker would have it; `more`: other options of CUDA's."""
    chosen = providers.options((CUDA,), engines=None, half=half, gpu_memory_bytes=None)
    options = {CUDA: {**chosen[CUDA], **more}}
    return worker_session.load(str(file.path), providers=(CUDA,), threads=1, options=options)


# What answering adds


def answering(file: ModelFile, folder: Path, seconds: float) -> Iterator[Result]:
    inputs = gpu_models.golden(file, 1)
    request = load.infer(file.model, {"x": inputs})
    before = used_bytes()
    with Device(folder / file.model) as device, load.elsewhere() as run:
        took = device.load(file)
        run(load.closed, device.unix, [request], seconds=0.5).result()
        seen = run(load.closed, device.unix, [request], seconds=seconds).result()
        taken = used_bytes() - before
    if seen.failed:
        raise SystemExit(f"{file.model}: {seen.failed} requests failed")
    model = session(file)
    seldom, often = (latencies(model, inputs, seconds, pause=pause) for pause in (PAUSE_SECONDS, 0.0))
    slow = latencies(processors(file), inputs, seconds)
    for percent in (50, 99):
        yield Result(f"{file.model}: p{percent} of a request", seen.microseconds(percent), "us", peer={
            "session.run with pauses": micro(seldom, percent), "without": micro(often, percent),
            "on all processors": micro(slow, percent),
        })  # fmt: skip
    yield Result(f"{file.model}: loading it", took * 1e3, "ms", peer={"MiB on the card": round(taken / _MIB)})


def processors(file: ModelFile) -> worker_session.Session:
    return worker_session.load(str(file.path), providers=(CPU,), threads=os.cpu_count() or 1)


def latencies(model: worker_session.Session, inputs: np.ndarray, seconds: float, *, pause: float = 0.0) -> np.ndarray:
    for _ in range(20):
        model.run({"x": inputs})
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(pause)
        found.append(once(model, inputs))
    return np.array(found)


def once(model: worker_session.Session, inputs: np.ndarray) -> float:
    start = time.perf_counter()
    model.run({"x": inputs})
    return time.perf_counter() - start


def micro(values: np.ndarray, percent: float) -> float:
    return round(load.percentile(values, percent) * 1e6, 1)


# New numbers of rows, exactness


def new_numbers_of_rows(file: ModelFile) -> Iterator[Result]:
    """The first run of each of 2 to 16 rows, as set, and where all algorithms are tried; then of 16 rows."""
    first: dict[str, list[float]] = {}
    usual: dict[str, float] = {}
    for name, search in (("ours", {}), ("all tried", {"cudnn_conv_algo_search": "EXHAUSTIVE"})):
        model = session(file, **search)
        once(model, gpu_models.golden(file, 1))
        first[name] = [once(model, gpu_models.golden(file, rows)) * 1e3 for rows in range(2, 17)]
        usual[name] = median([once(model, gpu_models.golden(file, 16)) * 1e3 for _ in range(100)])
    yield Result(f"{file.model}: first answer to a number of rows, median", median(first["ours"]), "ms", peer={
        "longest": round(max(first["ours"]), 1), "all algorithms tried": median(first["all tried"]),
        "and the longest": round(max(first["all tried"]), 1),
    })  # fmt: skip
    yield Result(f"{file.model}: 16 rows afterwards", usual["ours"], "ms", peer={"all tried": usual["all tried"]})


def exactness(file: ModelFile) -> Result:
    """Largest difference from the CPU's answers, in tolerances; 1 is as much as a self-test lets pass."""
    inputs = gpu_models.golden(file, 8)
    truth = on_cpu(file, inputs).astype(np.float64)
    allowed = TOLERANCE[CUDA].absolute + TOLERANCE[CUDA].relative * np.abs(truth)

    def off(half: bool) -> float:
        got = session(file, half=half).run({"x": inputs})["y"]
        return float((np.abs(got - truth) / allowed).max())

    return Result(f"{file.model}: off, in tolerances", off(False), "x", 1, peer={"in TF32": round(off(True), 3)})


# Swaps


def swapping(folder: Path, count: int) -> Sequence[Result]:
    """Two versions of the ResNet-18 in turn, while clients ask 200 times a second at fixed times."""
    pair = []
    for version in ("1", "2"):
        (folder / version).mkdir()
        pair.append(replace(gpu_models.residual(folder / version, seed=int(version)), version=version))
    request = load.infer("residual", {"x": gpu_models.golden(pair[0], 1)})
    with Device(folder / "swaps") as device:
        device.load(pair[0])
        with asking(folder, device.tcp, request, rate=RATE) as seen:
            time.sleep(1)
            for number in range(2):  # what is allocated once is not growth
                swap(device, pair[(number + 1) % 2], pair[number % 2])
            card, host = used_bytes(), memory_bytes(device)
            quiet = [idle(0.5) for _ in range(6)]
            windows = [
                part for number in range(count) for part in change(device, pair[(number + 1) % 2], pair[number % 2])
            ]
            grown = {"card": used_bytes() - card, "host": memory_bytes(device) - host}
        return judged(seen[0], windows, quiet, grown)


def change(device: Device, new: ModelFile, old: ModelFile) -> tuple[Window, Window]:
    """A swap in its two parts: the new version comes, the old one goes."""
    begin = time.monotonic()
    device.load(new)
    there = time.monotonic()
    device.unload(old.model, old.version)
    return Window("comes", begin, there), Window("goes", there, time.monotonic())


def judged(
    seen: load.Load, windows: Sequence[Window], quiet: Sequence[Window], grown: Mapping[str, int]
) -> list[Result]:
    count = len(windows) // 2
    usual = [gap_ms(seen, window) for window in quiet]
    found = [Result(f"failed requests in {count} swaps ({len(seen.statuses)} asked)", seen.failed, "", 0)]
    for kind, words in (("comes", "the new version comes"), ("goes", "the old one goes")):
        parts = [window for window in windows if window.kind == kind]
        gaps = [gap_ms(seen, window) for window in parts]
        found.append(Result(f"longest gap while {words}, median", median(gaps), "ms", peer={
            "of all": round(max(gaps), 1), "idle": median(usual), "longest idle": round(max(usual), 1),
            "takes": median([window.milliseconds for window in parts]),
        }))  # fmt: skip
    longest = max(gap_ms(seen, window) for window in windows) - median(usual)
    return [
        *found,
        Result("longest gap of all swaps, beyond the usual", round(longest, 1), "ms", GAP_MS),
        Result(f"card's memory after {count} swaps against before", grown["card"] / _MIB, "MiB", 32),
        Result("  host's", grown["host"] / _MIB, "MiB", 32),
    ]


@contextlib.contextmanager
def asking(folder: Path, address: str, request: bytes, *, rate: float) -> Iterator[list[load.Load]]:
    """A paced load for as long as the block runs; what it saw is in the list afterwards."""
    flag, seen = folder / "asking", list[load.Load]()
    flag.touch()
    with load.elsewhere() as run:
        future = run(load.paced, address, [request], rate=rate, seconds=600.0, flag=flag)
        try:
            yield seen
        finally:
            flag.unlink()
            seen.append(future.result(60))


if __name__ == "__main__":
    raise SystemExit(main())
