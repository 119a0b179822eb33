"""One model in onnxruntime: by path, strict about providers, without spinning threads.

Python 3.10 syntax: also runs under the worker's interpreter. Nothing here is imported before a fork
holds a session: a session must not live across a fork.

I/O: disk.
"""

import contextlib
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
import onnxruntime as ort

from agent.serving import worker_placement
from shared import probes

GOLDEN = "golden.npz"  # beside the model in its slot
CPU = "CPUExecutionProvider"
_TELLS = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")  # who got which node; since 1.24

NUMPY = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

_ORT = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class NoProviderError(Exception):
    """No acceptable provider could take the whole model. `reasons`: each begins with the name of one that was tried."""

    def __init__(self, wanted: Sequence[str], reasons: Sequence[str]) -> None:
        super().__init__(
            "none of {} can run the model ({})".format(", ".join(wanted), "; ".join(reasons) or "not installed here")
        )
        self.reasons = list(reasons)


class Spec:
    """Name, Open Inference Protocol datatype and shape (-1: free) of an input or output."""

    def __init__(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        self.name = name
        self.datatype = datatype
        self.dtype = NUMPY[datatype]
        self.shape = tuple(int(size) for size in shape)


class Session:
    """A loaded model. `passed_over`: providers that were tried before `provider`, and why they did not do."""

    def __init__(self, session: "ort.InferenceSession", passed_over: Sequence[str] = ()) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.passed_over = list(passed_over)
        self.inputs = [_spec(entry) for entry in session.get_inputs()]
        self.outputs = [_spec(entry) for entry in session.get_outputs()]
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by its name. Raises what onnxruntime raises."""
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=False))


def load(
    path: "Union[str, bytes]",
    *,
    providers: Sequence[str],
    threads: int,
    options: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> Session:
    """The model at `path`, or in these bytes, on the first of `providers` that can take all of it.

    `options`: provider -> its options.

    A provider other than the CPU's is asked for strictly: nodes that it leaves over go to the next one in the
    list, never silently to the CPU, but for what computes shapes (worker_placement); an onnxruntime that does not
    tell who got which node refuses models with those, too. Its own second attempt with other providers is off.

    Raises:
        NoProviderError: none of them is installed here, or none took the model.
    """
    reasons: list[str] = []
    choices = _choices(providers, ort.get_available_providers())
    if any(CPU not in chosen for chosen in choices):
        _find_libraries()
    for chosen in choices:
        try:
            session = ort.InferenceSession(
                path,
                _options(threads, strict=CPU not in chosen),
                providers=[(name, dict((options or {}).get(name, {}))) for name in chosen],
                enable_fallback=False,
            )
        except Exception as error:
            if CPU in chosen:
                raise
            reasons.append(f"{chosen[0]}: {worker_placement.plain(error)}")
            continue
        unfit = _unfit(session, chosen)
        if not unfit:
            return Session(session, reasons)
        reasons.append(f"{chosen[0]}: {unfit}")
    raise NoProviderError(providers, reasons)


def _find_libraries() -> None:
    """Those of CUDA that pip installed beside onnxruntime, which no search path of the system names."""
    beside = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(ort.__file__))), "nvidia")
    if os.path.isdir(beside) and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # where it complains of those that are missing
            ort.preload_dlls()


def _unfit(session: "ort.InferenceSession", chosen: Sequence[str]) -> str:
    """Why this session does not do for the providers that it was made for; empty: it does."""
    if session.get_providers()[0] != chosen[0]:
        return "onnxruntime could not start it (its driver or libraries are missing, or do not fit)"
    if CPU in chosen or not _TELLS:
        return ""
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU]
    left = worker_placement.left_over((node.op_type, node.name) for part in parts for node in part.get_nodes())
    return f"leaves nodes to the CPU: {left}" if left else ""


def projection(path: str) -> Optional[probes.Projection]:
    """That of the release whose model lies at `path`. A file that cannot be read costs features, never the worker."""
    try:
        with np.load(os.path.join(os.path.dirname(path), GOLDEN), allow_pickle=False) as golden:
            return probes.projection({name: golden[name] for name in golden.files if name in probes.MEMBERS})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _choices(wanted: Sequence[str], available: Sequence[str]) -> list[tuple[str, ...]]:
    """What to try, in order: accelerators together, each in turn as the first; the CPU alone."""
    accelerators = [name for name in wanted if name in available and name != CPU]
    found = [tuple(accelerators[position:]) for position in range(len(accelerators))]
    if CPU in wanted and CPU in available:
        found.append((CPU,))
    return found


def _options(threads: int, *, strict: bool) -> "ort.SessionOptions":
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if strict:
        options.add_session_config_entry(
            "session.record_ep_graph_assignment_info" if _TELLS else "session.disable_cpu_ep_fallback", "1"
        )
    return options


def _spec(entry: Any) -> Spec:
    datatype = _ORT.get(entry.type)
    if datatype is None:
        raise ValueError(f"{entry.name!r} has type {entry.type}, which the endpoint cannot carry")
    return Spec(entry.name, datatype, [size if isinstance(size, int) else -1 for size in entry.shape])
