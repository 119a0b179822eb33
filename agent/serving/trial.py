"""A model on its golden inputs, in a throw-away process under limits. The caller sets the time limit.

    python -m agent.serving.trial     one JSON request on stdin, one JSON verdict on stdout

    {"model", "golden", "providers", "threads", "tolerance": {"absolute", "relative"}, "memory_bytes", "cpu_seconds",
     "tolerances": {provider: tolerance} where it is another one, "options": {provider: its options},
     "readable", "writable": folders for compiled engines, "rows": most that may come at once}
    {"passed", "reason", "detail", "worst": {output: {"absolute", "relative"}}, "latency_ms", "provider",
     "passed_over": providers that did not do, "peak_bytes", "resident_bytes": what the model took,
     "unconfined": what this kernel has no means against}

Python 3.10 syntax: runs under the interpreter that has onnxruntime. The sandbox (worker_sandbox) is entered before
onnxruntime is imported. A process that ends without a verdict has failed: a crash or a limit took it.

I/O: disk, process, clock.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent.serving import worker_memory, worker_sandbox

CPU = "CPUExecutionProvider"
_DEFAULT_CPU_SECONDS = 300
_LATENCY_RUNS = 5
_END_WITH_PARENT = 1  # for prctl(2)
_TINY = 1e-12
_FIRST_TO_GO = "800"  # when memory runs out, before anything that serves
_GPU_FULL = "the GPU, or serving.gpu_memory_bytes, has not the memory that a run of the golden inputs takes ({})"
_OUT_OF_MEMORY = "it needs more than the memory limit of {:.1f} GiB"


class TrialFailed(Exception):  # noqa: N818 - reads as what it is
    """The verdict: reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def confine(request: Mapping[str, Any]) -> Sequence[str]:
    """Give up memory and processor time beyond the limits, other files, other processes and the network.

    What this kernel could not take away comes back, as texts.
    """
    cpu_only = set(request["providers"]) <= {CPU}
    missing: list[str] = []
    limits = {"processor time": (resource.RLIMIT_CPU, int(request.get("cpu_seconds", _DEFAULT_CPU_SECONDS)))}
    if cpu_only and request.get("memory_bytes"):  # accelerators reserve far more addresses than they use
        limits["memory"] = (resource.RLIMIT_AS, int(request["memory_bytes"]))
    for name, (kind, value) in limits.items():
        try:
            worker_sandbox.limit(kind, value)
        except (OSError, ValueError) as error:
            missing.append(f"the limit of {name} ({error})")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, what is only tried goes first
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_FIRST_TO_GO)
    folders = {os.path.dirname(os.path.abspath(str(request[name]))) for name in ("model", "golden")}
    readable = [*sorted(folders), *request.get("readable", ())]
    writable = [str(folder) for folder in request.get("writable", ())]
    return [*missing, *worker_sandbox.enter(readable=readable, writable=writable, accelerator=not cpu_only)]


def examine(request: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a model that may be anything.

    Raises:
        TrialFailed: it does not load, does not fit its golden file or answers otherwise.
    """
    import numpy as np

    from agent.serving import worker_placement, worker_session

    before = worker_memory.now()
    try:
        session = worker_session.load(
            str(request["model"]),
            providers=request["providers"],
            threads=int(request.get("threads", 1)),
            options=request.get("options"),
        )
    except worker_session.NoProviderError as error:
        reason = "E_MEMORY" if worker_placement.short_of_memory(str(error)) else "E_PROVIDER"
        raise TrialFailed(reason, str(error)) from None
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common root
        raise TrialFailed("E_LOAD", f"the model does not load: {_why(error, request)}") from None
    with np.load(str(request["golden"]), allow_pickle=False) as golden:
        arrays = {name: golden[name] for name in golden.files}
    inputs = {spec.name: _array(arrays, "input", spec.name) for spec in session.inputs}
    wanted = {spec.name: _array(arrays, "output", spec.name) for spec in session.outputs}
    _fits(session.inputs, inputs)
    try:
        got = session.run(inputs)
    except Exception as error:  # noqa: BLE001 - as above
        if session.provider != CPU and worker_placement.short_of_memory(str(error)):
            raise TrialFailed("E_MEMORY", _GPU_FULL.format(worker_placement.plain(error))) from None
        raise TrialFailed("E_LOAD", f"the model does not run: {_why(error, request)}") from None
    worst = _compare(got, wanted, _tolerance(request, session.provider))
    latency = _latency(session, inputs)
    if request.get("writable"):  # an engine is made for the shapes that it has seen
        _as_many(session, inputs, int(request.get("rows", 1)))
    unified = session.provider != CPU and worker_memory.unified()
    peak, resident = worker_memory.added(before, worker_memory.now(), unified=unified)
    return {
        "passed": True,
        "reason": None,
        "detail": f"{len(next(iter(inputs.values()), ()))} golden rows answered as published",
        "worst": worst,
        "latency_ms": latency,
        "provider": session.provider,
        "passed_over": session.passed_over,
        "peak_bytes": peak,
        "resident_bytes": resident,
    }


def _tolerance(request: Mapping[str, Any], provider: str) -> Mapping[str, float]:
    """That of the provider which took the model."""
    found: Mapping[str, float] = request.get("tolerances", {}).get(provider, request["tolerance"])
    return found


def _as_many(session: Any, inputs: Mapping[str, Any], rows: int) -> None:
    """Run once on so many rows, where the model takes any number."""
    import numpy as np

    counts = {len(array) for array in inputs.values() if array.ndim}
    if rows > max(counts, default=rows) and len(counts) == 1 and _free(session):
        session.run({name: np.resize(array, (rows, *array.shape[1:])) for name, array in inputs.items()})


def _array(arrays: Mapping[str, Any], side: str, name: str) -> Any:
    try:
        return arrays[f"{side}.{name}"]
    except KeyError:
        raise TrialFailed("E_SHAPE", f"the golden file has no {side} {name!r}") from None


def _fits(specs: Sequence[Any], inputs: Mapping[str, Any]) -> None:
    for spec in specs:
        array = inputs[spec.name]
        if spec.datatype != "BYTES" and array.dtype != spec.dtype:
            raise TrialFailed("E_SHAPE", f"input {spec.name!r} is {spec.datatype}, golden has {array.dtype}")
        fits = len(array.shape) == len(spec.shape) and all(
            want in (-1, size) for want, size in zip(spec.shape, array.shape, strict=False)
        )
        if not fits:
            raise TrialFailed(
                "E_SHAPE", f"input {spec.name!r} has shape {list(spec.shape)}, golden has {list(array.shape)}"
            )


def _compare(got: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: Mapping[str, float]) -> dict[str, Any]:
    """Largest differences of each output.

    Raises:
        TrialFailed: one is not finite where the golden output is, has another shape, or is beyond the tolerance.
    """
    import numpy as np

    worst: dict[str, Any] = {}
    for name, expected in wanted.items():
        answer = got[name]
        if answer.shape != expected.shape:
            raise TrialFailed(
                "E_SHAPE", f"output {name!r} has shape {list(answer.shape)}, expected {list(expected.shape)}"
            )
        if answer.dtype.kind not in "fiub":
            if answer.tolist() != expected.astype(answer.dtype).tolist():
                raise TrialFailed("E_GOLDEN_MISMATCH", f"output {name!r} has other text than published")
            worst[name] = {"absolute": 0.0, "relative": 0.0}
            continue
        value, truth = answer.astype(np.float64), expected.astype(np.float64)
        if not np.isfinite(value).all():
            raise TrialFailed("E_NOT_FINITE", f"output {name!r} holds NaN or infinity")
        off = np.abs(value - truth)
        worst[name] = {
            "absolute": float(off.max(initial=0.0)),
            "relative": float((off / (np.abs(truth) + _TINY)).max(initial=0.0)),
        }
        allowed = tolerance["absolute"] + tolerance["relative"] * np.abs(truth)
        wrong = int((~(off <= allowed)).sum())
        if wrong:
            raise TrialFailed(
                "E_GOLDEN_MISMATCH",
                f"output {name!r}: {wrong} of {off.size} values are off, by up to {worst[name]['absolute']:.3g}",
            )
    return worst


def _latency(session: Any, inputs: Mapping[str, Any]) -> float:
    """Median milliseconds of one row; of the whole batch where the model's batch is fixed."""
    row = {name: array[:1] if array.ndim else array for name, array in inputs.items()}
    row = row if _one_will_do(session) else dict(inputs)
    taken: list[float] = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        session.run(row)
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def _one_will_do(session: Any) -> bool:
    return all(not spec.shape or spec.shape[0] in (-1, 1) for spec in session.inputs)


def _free(session: Any) -> bool:
    return all(spec.shape and spec.shape[0] == -1 for spec in session.inputs)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:500]


def _why(error: BaseException, request: Mapping[str, Any]) -> str:
    """Its first line; onnxruntime's many words for a full memory become one."""
    text = _first_line(error)
    if isinstance(error, MemoryError) or any(word in text for word in ("bad_alloc", "ailed to allocate memory")):
        return _OUT_OF_MEMORY.format(_gibibytes(request)) + f" ({text})"
    return text


def _gibibytes(request: Mapping[str, Any]) -> float:
    return float(request.get("memory_bytes") or 0) / 2**30


def judge(request: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, whatever happens."""
    try:
        return examine(request)
    except TrialFailed as error:
        failed = error
    except MemoryError:
        failed = TrialFailed("E_LOAD", _OUT_OF_MEMORY.format(_gibibytes(request)))
    except Exception as error:  # noqa: BLE001 - the verdict on anything unforeseen is "failed"
        failed = TrialFailed("E_LOAD", f"{type(error).__name__}: {_first_line(error)}")
    return {
        "passed": False,
        "reason": failed.reason,
        "detail": failed.detail,
        "worst": {},
        "latency_ms": None,
        "provider": "",
    }


def main() -> None:
    request = json.load(sys.stdin)
    verdict_file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for the verdict
    unconfined = confine(request)
    json.dump({**judge(request), "unconfined": unconfined}, verdict_file)
    verdict_file.flush()
    os._exit(0)  # the model's memory goes with the process; no destructor of its may hang


if __name__ == "__main__":
    main()
