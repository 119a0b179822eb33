"""Run a model over its reference data in a throw-away process: golden outputs, features, accuracy, latency.

    parent: run() --JSON on stdin--> child: python -m fleet.releases.reference_run --JSON on stdout, .npz file-->

The child is bounded in memory, processor time and wall time; a model that crashes it harms nothing.

I/O: disk, process, clock.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.releases import embedding as embeddings
from fleet.releases.errors import EmbeddingError
from shared.errors import RefusedError
from shared.messages import LAST_CLASS
from shared.probes import Projection, answers, class_scores, embedded, probe

if TYPE_CHECKING:
    from shared.manifest import Tensor

Arrays = Mapping[str, NDArray[Any]]
BATCH_ROWS: Final = 64
LATENCY_RUNS: Final = 30
MEMORY_BYTES: Final = 8 * 1024**3
TIMEOUT_SECONDS: Final = 600.0


class ModelRunError(RefusedError):
    """The model does not run on its own reference data."""

    code = "E_MODEL_RUN"
    default_remedy = "run it with onnxruntime on the same data and correct the export"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the run found."""

    golden: bytes  # the .npz that devices check themselves against
    features: Mapping[str, NDArray[np.float64]]  # shared.probes, one value per reference row
    classes: int  # width of the score output; 0 without one
    output_shapes: Mapping[str, tuple[int, ...]]
    latency_ms: float  # median of one row (or of the model's fixed batch)
    metrics: Mapping[str, float]  # accuracy, macro precision and recall, where the reference has labels
    right: NDArray[np.bool_] | None = None  # whether each row was answered rightly, where it has labels

    @property
    def accuracy(self) -> float | None:
        """Share of right answers."""
        return self.metrics.get("accuracy")


def run(
    onnx: bytes,
    inputs: Arrays,
    labels: NDArray[Any] | None,
    *,
    declared: Sequence[Tensor],
    golden_rows: int,
    embedding: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Measured:
    """Run the model `onnx` over all rows of `inputs`. `embedding`: an output whose projection becomes features.

    Raises:
        EmbeddingError: that output is none, or not one row of finite values for each row of input.
        ModelRunError: it does not load, crashes, hangs, or gives what is not finite.
    """
    fixed = [tensor.shape[0] for tensor in declared if tensor.shape and tensor.shape[0] > 0]
    with tempfile.TemporaryDirectory(prefix="flotilla-publish-") as folder:
        names = ("model.onnx", "reference.npz", "result.npz", "golden.npz")
        model, data, result, golden = (Path(folder) / name for name in names)
        model.write_bytes(onnx)  # the bytes that were scanned, in a folder with nothing else to read
        np.savez(data, allow_pickle=False, **{f"input.{name}": array for name, array in inputs.items()})
        task = {
            "model": str(model),
            "data": str(data),
            "result": str(result),
            "golden": str(golden),
            "batch": fixed[0] if fixed else 0,
            "golden_rows": fixed[0] if fixed else golden_rows,
            "embedding": embedding,
        }
        found = _ask_child(task, timeout_seconds)
        with np.load(result) as arrays:
            features = {name: arrays[name] for name in arrays.files}
        predicted = features.get("class.predicted")
        shapes = {name: tuple(shape) for name, shape in found["output_shapes"].items()}
        return Measured(
            golden=golden.read_bytes(),
            features=features,
            classes=found["classes"],
            output_shapes=shapes,
            latency_ms=found["latency_ms"],
            metrics=_metrics(predicted, labels),
            right=None if predicted is None or labels is None else predicted == labels[: len(predicted)],
        )


def _metrics(predicted: NDArray[np.float64] | None, labels: NDArray[Any] | None) -> Mapping[str, float]:
    """Precision is the mean over the classes that were predicted, recall over those that there are, of the first 31."""
    if predicted is None or labels is None:
        return {}
    labels = labels[: len(predicted)]
    right = predicted == labels
    return {
        "accuracy": float(np.mean(right)),
        **{
            name: float(np.mean([np.mean(right[by == found]) for found in np.unique(by) if found < LAST_CLASS]))
            for name, by in (("precision", predicted), ("recall", labels))
            if (by < LAST_CLASS).any()
        },
    }


def _ask_child(task: Mapping[str, Any], timeout_seconds: float) -> Any:
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "fleet.releases.reference_run"],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelRunError(f"the model did not finish its reference data in {timeout_seconds:.0f} s") from None
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        raise ModelRunError(
            f"the process that ran the model ended with {ended.returncode}: {' '.join(said[-1:])[:500]}"
        )
    found = json.loads(ended.stdout)
    if "embedding" in found:
        raise EmbeddingError(found["embedding"])
    if "error" in found:
        raise ModelRunError(found["error"])
    return found


# What follows runs in the child.


def _child() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = _measure(json.load(sys.stdin))
    except EmbeddingError as error:
        answer = {"embedding": error.detail[:800]}
    except Exception as error:  # noqa: BLE001  (the runtime's exceptions have no common root)
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:800]}
    sys.stdout.write(json.dumps(answer))


def _measure(task: Mapping[str, Any]) -> dict[str, Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would report to its makers, from the import on
    import onnxruntime  # only the child loads it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(task["model"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(task["data"]) as arrays:
        inputs = {name.removeprefix("input."): arrays[name] for name in arrays.files}

    def answer(feed: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, feed), strict=True))

    golden_inputs = {name: array[: task["golden_rows"]] for name, array in inputs.items()}
    golden_outputs = answer(golden_inputs)
    _must_be_finite(golden_outputs)
    features, along = _features(inputs, answer, task["batch"], task["embedding"])
    np.savez(
        task["golden"],
        allow_pickle=False,
        **{f"input.{name}": array for name, array in golden_inputs.items()},
        **{f"output.{name}": array for name, array in golden_outputs.items()},
        **({} if along is None else embeddings.members(along)),
    )
    np.savez(task["result"], allow_pickle=False, **features)
    one = {name: array[: task["batch"] or 1] for name, array in inputs.items()}
    scores = class_scores(answers(golden_outputs, along))
    return {
        "latency_ms": _median_ms(lambda: answer(one)),
        "classes": 0 if scores is None else scores.shape[1],
        "output_shapes": {name: list(array.shape) for name, array in golden_outputs.items()},
    }


def _must_be_finite(outputs: Mapping[str, Any]) -> None:
    for name, array in outputs.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"output {name!r} is not a tensor")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"output {name!r} holds NaN or infinity on the reference data")


def _features(
    inputs: Arrays, answer: Any, batch: int, embedding: str | None
) -> tuple[dict[str, Any], Projection | None]:
    """Probes over all rows, in batches of the model's own size; the projection of the embedding, if there is one."""
    rows = len(next(iter(inputs.values())))
    size = batch or min(BATCH_ROWS, rows)
    pieces: dict[str, list[Any]] = {}
    rows_of_it: list[Any] = []
    for start in range(0, rows - (rows % batch if batch else 0), size):
        feed = {name: array[start : start + size] for name, array in inputs.items()}
        outputs = answer(feed)
        given = len(next(iter(feed.values())))
        if embedding is not None:
            rows_of_it.append(embeddings.checked(embedding, outputs, given))
        by_row = {
            name: array for name, array in outputs.items() if array.ndim and len(array) == given and name != embedding
        }
        for name, values in probe(feed, by_row).items():
            pieces.setdefault(name, []).append(values)
    found = {name: np.concatenate(values) for name, values in pieces.items()}
    if embedding is None:
        return found, None
    values = np.concatenate(rows_of_it)
    along = embeddings.fitted(embedding, values)
    return found | embedded(values, along), along


def _median_ms(call: Any) -> float:
    taken = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    return float(np.median(taken))


if __name__ == "__main__":
    _child()
