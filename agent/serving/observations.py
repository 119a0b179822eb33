"""What the endpoint tells about itself, and the bytes that carry it from the front to the daemon.

The front only copies what the worker measured into a record; names become text and floats here, in the
daemon, where nobody waits for an answer.

I/O: none.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.serving.worker_wire import unpack_features

#: Kinds of failure, in the order of their number on the wire; 0 is success.
ERRORS: Final = (None, "bad-request", "not-finite", "worker-died", "timeout", "busy", "internal")

_SAMPLE: Final = struct.Struct("<BHHHdBII")  # kind, model, version, id: lengths; latency; error; batch; feature bytes
_FEEDBACK: Final = struct.Struct("<BHHHBii")  # kind, model, version, id: lengths; correct; truth, predicted
NO_CLASS: Final = -1
_MAX_CLASS: Final = 2**31 - 1
_KIND_SAMPLE: Final = 1
_KIND_FEEDBACK: Final = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered (or failed) request of one model version."""

    model: str
    version: str
    request_id: str
    latency_ms: float  # in the front, from last byte in to first byte out
    error: str | None = None  # one of ERRORS
    features: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # shared.probes.probe, one value per row
    batch: int = 0  # rows of the run of the model that this request is counted for; 0: told by another one


@dataclass(frozen=True, slots=True)
class Feedback:
    """Ground truth joined with the class that was answered."""

    model: str
    version: str
    request_id: str
    correct: bool
    truth: int = NO_CLASS
    predicted: int = NO_CLASS


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The worker of a loaded version ended without being told to."""

    model: str
    version: str
    exit: str  # "SIGKILL", "exit 3", "hang", "lost"


Observation = Sample | Feedback | WorkerDied


@dataclass(frozen=True, slots=True)
class Finished:
    """A sample as the front has it: features still packed."""

    model: str
    version: str
    request_id: str
    latency_ms: float
    error: str | None
    features: bytes = b""
    batch: int = 0


def pack(entry: Finished | Feedback) -> bytes:
    """One record."""
    names = [entry.model.encode(), entry.version.encode(), entry.request_id.encode()[:512]]
    lengths = [len(name) for name in names]
    if isinstance(entry, Feedback):
        classes = [found if 0 <= found <= _MAX_CLASS else NO_CLASS for found in (entry.truth, entry.predicted)]
        return _FEEDBACK.pack(_KIND_FEEDBACK, *lengths, entry.correct, *classes) + b"".join(names)
    error, size = ERRORS.index(entry.error), len(entry.features)
    head = _SAMPLE.pack(_KIND_SAMPLE, *lengths, entry.latency_ms, error, entry.batch, size)
    return head + b"".join(names) + entry.features


def unpack(data: bytes) -> Sequence[Observation]:
    """The records in `data`, which our own front wrote."""
    return list(_records(data))


def _records(data: bytes) -> Iterator[Observation]:
    at = 0
    while at < len(data):
        if data[at] == _KIND_FEEDBACK:
            _, *lengths, correct, truth, predicted = _FEEDBACK.unpack_from(data, at)
            at += _FEEDBACK.size
            (model, version, request), at = _names(data, at, lengths)
            yield Feedback(model, version, request, bool(correct), truth, predicted)
        else:
            _, *lengths, latency, error, batch, size = _SAMPLE.unpack_from(data, at)
            at += _SAMPLE.size
            (model, version, request), at = _names(data, at, lengths)
            features = unpack_features(data[at : at + size])
            at += size
            yield Sample(model, version, request, latency, ERRORS[error], features, batch)


def _names(data: bytes, at: int, lengths: Sequence[int]) -> tuple[list[str], int]:
    found = []
    for length in lengths:
        found.append(data[at : at + length].decode(errors="replace"))
        at += length
    return found, at
