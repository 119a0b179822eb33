"""Do two versions agree on one request? The answer that a client got, read back, against a candidate's outputs.

    class scores   the arg max of each row; every row is a sample
    anything else  all that was answered: numbers within the tolerance, text equal; the request is one sample

Outputs that the client did not ask for are not compared. Python 3.10 syntax: also runs under the worker's
interpreter.

I/O: none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from agent.serving import worker_tensors
from shared import probes

Arrays = Mapping[str, np.ndarray]


class Tolerance(NamedTuple):
    absolute: float
    relative: float


class Found(NamedTuple):
    samples: int
    agreed: int
    difference: float  # largest absolute one between numbers


def read(body: bytes, json_bytes: Optional[int], outputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """The outputs in an answer of ours, whose first `json_bytes` are JSON (None: all of it).

    The best classes that a client asked for come as text, whatever the type of the output is.
    """
    specs = {spec.name: spec for spec in outputs}
    document = json.loads(body if json_bytes is None else body[:json_bytes])
    at = 0 if json_bytes is None else json_bytes
    found: dict[str, np.ndarray] = {}
    for entry in document["outputs"]:
        name, shape = entry["name"], entry["shape"]
        text = entry["datatype"] == "BYTES"
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is not None:
            raw = memoryview(body)[at : at + size]
            at += size
            flat = (
                worker_tensors.unpacked_text(name, raw, worker_tensors.elements(shape))
                if text
                else np.frombuffer(raw, dtype=specs[name].dtype)
            )
        elif "data" in entry:
            flat = np.array(entry["data"], dtype=np.object_ if text else specs[name].dtype)
        else:
            continue  # it went to memory of the client
        found[name] = flat.reshape(shape)
    return found


def compare(served: Arrays, own: Arrays, tolerance: Tolerance) -> Optional[Found]:
    """How the answer of the version that serves and that of the candidate agree; None: there is nothing to compare."""
    scores = probes.class_scores(own)
    name = next((name for name, array in own.items() if array is scores), "") if scores is not None else ""
    if scores is not None and name in served:
        return _classes(served[name], scores)
    pairs = [(served[name], own[name]) for name in served if name in own]
    if not pairs:
        return None
    difference = max(_difference(before, now) for before, now in pairs)
    return Found(1, int(all(_alike(before, now, tolerance) for before, now in pairs)), difference)


def _classes(served: np.ndarray, scores: np.ndarray) -> Found:
    own = scores.argmax(axis=1)
    if served.dtype.kind == "O":
        best = np.array([_index(line) for line in served.reshape(len(served), -1)[:, 0]])
        difference = 0.0
    elif served.ndim == 2:
        best, difference = served.argmax(axis=1), _difference(served, scores)
    else:
        return Found(len(own), 0, 0.0)
    if len(best) != len(own):
        return Found(len(own), 0, 0.0)
    return Found(len(own), int(np.count_nonzero(best == own)), difference)


def _index(text: Any) -> int:
    """Of `score:index`, or `score:index:label`."""
    return int(worker_tensors.plain_text(text).split(":")[1])


def _difference(before: np.ndarray, now: np.ndarray) -> float:
    if before.shape != now.shape or not before.size or "O" in (before.dtype.kind, now.dtype.kind):
        return 0.0
    return float(np.abs(before.astype(np.float64) - now.astype(np.float64)).max())


def _alike(before: np.ndarray, now: np.ndarray, tolerance: Tolerance) -> bool:
    if before.shape != now.shape:
        return False
    if "O" in (before.dtype.kind, now.dtype.kind):
        return [worker_tensors.plain_text(item) for item in before.ravel()] == [
            worker_tensors.plain_text(item) for item in now.ravel()
        ]
    value = before.astype(np.float64)
    allowed = tolerance.absolute + tolerance.relative * np.abs(value)
    return bool((np.abs(value - now.astype(np.float64)) <= allowed).all())
