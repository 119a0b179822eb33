"""What an update takes on the wire: our deltas beside other makers', on pairs of really trained networks.

python -m tests.bench.delta [--quick] [--known-peers] [--mutations N]

Trains a convolutional net of 11 M and a transformer of 23 M parameters the first time (a few minutes), and lets the
peers work on every pair (hours, for some; their bytes for the same files are kept). `--quick`: two pairs, peers that
are known already.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # figures are for one core

import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleet.releases.delta import snap_gate
from fleet.releases.delta.encoding import Delta, encode
from shared.delta import coding
from shared.delta.errors import DeltaError
from shared.delta.numbers import Array
from shared.delta.rebuild import rebuild
from shared.delta.split import split
from shared.identifiers import sha256
from shared.onnx_scan import scan
from tests.bench import document, peers
from tests.bench.delta_peers import WEIGHT_AWARE, Peers
from tests.bench.document import Result
from tests.shared.test_delta import hostile_samples, mutated

_TRAINING: Final = Path(__file__).parent / "peer_code" / "delta_training.py"
_SLACK_BYTES: Final = 1024  # above the best peer, at most
#: Pair -> most of the best byte delta, most of the best codec for weights.
GOALS: Final[Mapping[str, tuple[float | None, float | None]]] = {
    "a-head-only": (None, None),
    "b1-resnet-1e-5": (0.65, 0.90),
    "b2-resnet-1e-4": (0.76, 0.95),
    "b3-minilm-2e-5": (0.65, 0.90),
    "b4-minilm-steps": (0.65, 0.90),
    "c-retrain": (None, None),
    "d1-minilm-int8": (0.85, 0.90),
    "d2-resnet-qdq": (0.85, 0.90),
    "e1-minilm-fp16": (0.75, 0.90),
    "e2-resnet-fp16": (0.75, 0.90),
    "f-re-export": (None, None),
    "g1-low-rank-fp32": (0.10, None),
    "g2-low-rank-fp16": (0.10, None),
    "h-pruned": (None, None),
}
SNAPPED: Final = {"b1-resnet-1e-5": "resnet", "b2-resnet-1e-4": "resnet", "b3-minilm-2e-5": "minilm"}
_ROWS: Final = 128  # that outputs are compared on
_QUICK: Final = ("a-head-only", "d2-resnet-qdq")

_CHILD: Final = """
import hashlib, mmap, sys
from pathlib import Path
from shared.delta.rebuild import rebuild
old, delta, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def pieces():
    with delta.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
def peak():  # ru_maxrss would count the parent's memory, too
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
digest = hashlib.sha256()
before = peak()
with old.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as base, memoryview(base) as view:
    for piece in rebuild(view, pieces(), result_bytes=size):
        digest.update(piece)
        del piece
print(peak() - before, digest.hexdigest())
"""


def main() -> int:
    parser = document.options(__doc__ or "")
    parser.add_argument("--mutations", type=int, default=100_000, help="damaged deltas to read")
    parser.add_argument("--known-peers", action="store_true", help="only peers whose figures are there already")
    parser.add_argument("--pairs", default="", help="only those whose name begins so")
    asked = parser.parse_args()
    folder = peers.home() / "delta"
    others = Peers(folder)
    others.install()
    if not all((folder / "pairs" / name / "new.onnx").is_file() for name in GOALS):
        command = ["nice", str(others.python), str(_TRAINING), str(folder / "pairs")]
        subprocess.run(command, check=True, stdout=sys.stderr)
    results: list[Result] = []
    for name in GOALS:
        if (asked.quick and name not in _QUICK) or not name.startswith(asked.pairs):
            continue
        place = folder / "pairs" / name
        known = others.measure(
            place / "old.onnx", place / "new.onnx", ["none"] if asked.quick or asked.known_peers else ()
        )
        results += measured(name, place, known)
        if name in SNAPPED:
            results += snapped(name, place, folder / "pairs" / f"{SNAPPED[name]}.npz")
    results += hostile(2000 if asked.quick else asked.mutations)
    return document.tell("delta", results, as_json=asked.json)


def measured(name: str, place: Path, known: Mapping[str, int]) -> list[Result]:
    """Bytes, speed and memory of one pair."""
    old, new = (place / "old.onnx").read_bytes(), (place / "new.onnx").read_bytes()
    started = time.process_time()
    delta = encode(old, new)
    encoding = time.process_time() - started
    digest = hashlib.sha256()
    started = time.process_time()
    for piece in rebuild(memoryview(old), iter((delta.data,)), result_bytes=len(new)):
        digest.update(piece)
    decoding = time.process_time() - started
    if digest.digest() != hashlib.sha256(new).digest():
        raise AssertionError(f"{name}: not the same file")
    ours, mega = len(delta.data), len(new) / 1e6
    floats = name[0] in "abcfgh" and "fp16" not in name
    by_bytes = min((size for peer, size in known.items() if peer not in WEIGHT_AWARE), default=0)
    by_weights = min((size for peer, size in known.items() if peer in WEIGHT_AWARE), default=0)
    part, aware = GOALS[name]
    rows = [
        Result(f"{name}: kB on the wire", round(ours / 1000, 2), "kB", peer=_kilo(known)),
        Result(f"{name}: of the full file", round(100 * ours / len(new), 3), "%"),
        Result(f"{name}: above the entropy of its residuals", round(100 * (ours / bound(old, new, delta) - 1), 2), "%"),
        Result(f"{name}: encoding 5 MB", round(5 * encoding / mega, 3), "s", goal=1.0 if floats else None),
        Result(f"{name}: decoding 100 MB", round(100 * decoding / mega, 3), "s", goal=1.0 if floats else None),
    ]
    if known:
        rows.append(Result(f"{name}: above the best peer", ours - min(known.values()), "B", goal=_SLACK_BYTES))
    if by_bytes:
        rows.append(Result(f"{name}: of the best byte delta", round(ours / by_bytes, 4), "", goal=part))
    if by_weights:
        rows.append(Result(f"{name}: of the best weight codec", round(ours / by_weights, 4), "", goal=aware))
    largest = max(tensor.size_bytes for tensor in split(new))
    rows.append(
        Result(f"{name}: memory of the reader", memory(place, delta, new), "MB", goal=(2 * largest + (64 << 20)) / 1e6)
    )
    return rows


def _kilo(known: Mapping[str, int]) -> dict[str, float]:
    return {peer: round(size / 1000, 2) for peer, size in known.items()}


def memory(place: Path, delta: Delta, new: bytes) -> float:
    """Peak of a reader in a process of its own, beside the old file that it maps."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(delta.data)
        file.flush()
        command = [sys.executable, "-c", _CHILD, str(place / "old.onnx"), file.name, str(len(new))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, digest = done.stdout.split()
    if digest != hashlib.sha256(new).hexdigest():
        raise AssertionError("not the same file in a process of its own")
    return round(max(0, int(peak) - (place / "old.onnx").stat().st_size) / 1e6, 1)


def bound(old: bytes, new: bytes, delta: Delta) -> float:
    """Entropy in bytes of all residuals in the blocks that they are coded in, and what else the stream holds.

    A residual is its sixteenth of an octave, and plain bits within; no cost of a model is counted.
    """
    saved: Counter[str] = Counter()
    real = coding.unpack_integers

    def counting(block: bytes, count: int, dtype: Any) -> Array:
        found = real(block, count, dtype)
        saved["coded"] += len(block)
        saved["bits"] += int(_entropy_bits(found))
        return found

    coding.unpack_integers = counting
    try:
        for _ in rebuild(memoryview(old), iter((delta.data,)), result_bytes=len(new)):
            pass
    finally:
        coding.unpack_integers = real
    return len(delta.data) - saved["coded"] + saved["bits"] / 8


def _entropy_bits(numbers: Array) -> float:
    size = np.abs(numbers.astype(np.float64))
    bins = np.where(size < 32, size, np.floor(16 * np.log2(np.maximum(size, 1))) + 1000).astype(np.int64)
    signed = bins * np.where(numbers < 0, -1, 1)
    names, counts = np.unique(signed, return_counts=True)
    octave = (np.abs(names) - 1000) / 16.0
    width = np.where(np.abs(names) < 1000, 1.0, np.exp2(octave + 1 / 16) - np.exp2(octave))
    share = counts / counts.sum()
    return float(np.sum(counts * (-np.log2(share) + np.log2(np.maximum(width, 1)))))


def snapped(name: str, place: Path, data: Path) -> list[Result]:
    """The same pair, the change rounded to the coarsest grid that passes the gate."""
    old, new = (place / "old.onnx").read_bytes(), (place / "new.onnx").read_bytes()
    with np.load(data) as arrays:
        rows = {key: arrays[key][:_ROWS] for key in arrays.files}
    labels = rows.pop("label")
    made = snap_gate.snapped(old, new, rows, labels, declared=scan(new).inputs)
    delta = encode(old, made.onnx, grids=made.grids)
    part = len(delta.data) / len(new)
    away = made.metrics["snap_distance"] / made.metrics["snap_distance_fp16"]
    return [
        Result(f"{name} snapped: of the full file", round(part, 4), "", goal=0.14),
        Result(f"{name} snapped: distance of outputs beside that of 16 bits", round(away, 3), "", goal=1.0),
        Result(f"{name} snapped: accuracy lost", 100 * made.metrics["snap_accuracy_lost"], "%", goal=0.0),
    ]


def hostile(count: int) -> list[Result]:
    """Damaged deltas: what was taken for the file, what went wrong, the slowest."""
    samples = list(hostile_samples())
    wrong = refused = 0
    slowest = 0.0
    for seed in range(count):
        old, new, delta = samples[seed % len(samples)]
        damaged = mutated(delta.data, seed)
        started = time.process_time()
        found = _read(old, new, damaged)
        refused += found is None
        wrong += found is not None and found != new and sha256(found) == sha256(new)
        slowest = max(slowest, time.process_time() - started)
    return [
        Result(f"{count} damaged deltas: other files accepted", wrong, "", goal=0),
        Result(f"{count} damaged deltas: not refused before the digest", count - refused, ""),
        Result(f"{count} damaged deltas: slowest", round(1000 * slowest, 1), "ms", goal=1000),
    ]


def _read(old: bytes, new: bytes, damaged: bytes) -> bytes | None:
    """What comes out; None when it is refused. Anything but a `DeltaError` ends the benchmark."""
    try:
        return b"".join(rebuild(memoryview(old), iter((damaged,)), result_bytes=len(new)))
    except DeltaError:
        return None


if __name__ == "__main__":
    sys.exit(main())
