"""What an update takes on the wire: our deltas beside other makers', on pairs of really trained networks.

python -m tests.bench.delta [--quick] [--pairs b1,d] [--peers bsdiff,rdiff] [--before "nice -n 5"] [--table]

Trains a convolutional net of 11 M and a transformer of 23 M parameters the first time (a few minutes), and lets the
peers work on every pair (an hour of one core). Our figures and the peers' for one pair are of one run, which lies in a
folder of its own: a run that was cut goes on, and another delta begins another run. `--quick`: two pairs, the quick
peers. `--table` prints the last run as docs/delta.md shows it.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # figures are for one core

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from fleet.releases.delta import snap_gate
from fleet.releases.delta.encoding import encode
from shared.onnx_scan import scan
from tests.bench import delta_hostile, delta_pairs, delta_table, document, peers
from tests.bench.delta_pairs import Ours
from tests.bench.delta_peers import WEIGHT_AWARE, Figure, Peers
from tests.bench.document import Result

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
_QUICK_PEERS: Final = ("xdelta3 -9", "casync", "rdiff", "zipnn", "z4ai")


def main() -> int:
    parser = document.options(__doc__ or "")
    parser.add_argument("--mutations", type=int, default=100_000, help="damaged deltas to read")
    parser.add_argument("--pairs", default="", help="only those whose name begins with one of these")
    parser.add_argument("--peers", default="", help="only these; figures that the run has are shown in any case")
    parser.add_argument("--before", default="", help="words in front of each peer's command")
    parser.add_argument("--table", action="store_true", help="print the last run's tables, measure nothing")
    asked = parser.parse_args()
    folder = peers.home() / "delta"
    others = Peers(folder, shlex.split(asked.before))
    if asked.table:
        print(delta_table.told(folder / "runs", tuple(GOALS)))
        return 0
    others.install()
    if not all((folder / "pairs" / name / "new.onnx").is_file() for name in GOALS):
        command = ["nice", str(others.python), str(_TRAINING), str(folder / "pairs")]
        subprocess.run(command, check=True, stdout=sys.stderr)
    names = tuple(asked.peers.split(",")) if asked.peers else _QUICK_PEERS if asked.quick else ()
    results: list[Result] = []
    for name in GOALS:
        if (asked.quick and name not in _QUICK) or not name.startswith(tuple(asked.pairs.split(","))):
            continue
        place = folder / "pairs" / name
        ours = delta_pairs.measured(place)
        run = folder / "runs" / f"{name}-{ours.key}"
        ours.save(run)
        results += compared(ours, others.measure(place / "old.onnx", place / "new.onnx", run, names))
        if name in SNAPPED:
            results += snapped(name, place, folder / "pairs" / f"{SNAPPED[name]}.npz")
    results += delta_hostile.results(2000 if asked.quick else asked.mutations, folder / "runs")
    return document.tell("delta", results, as_json=asked.json)


def compared(ours: Ours, figures: Mapping[str, Figure]) -> list[Result]:
    """Bytes, speed and memory of one pair, beside the peers of the same run."""
    known = {peer: figure.size_bytes for peer, figure in figures.items() if figure.size_bytes is not None}
    by_bytes = min((size for peer, size in known.items() if peer not in WEIGHT_AWARE), default=0)
    by_weights = min((size for peer, size in known.items() if peer in WEIGHT_AWARE), default=0)
    part, aware = GOALS[ours.name]
    name, size, mega = ours.name, ours.size_bytes, ours.new_bytes / 1e6
    above = round(100 * (size / ours.bound_bytes - 1), 2)
    speed = 1.0 if name[0] in "abcfgh" and "fp16" not in name else None
    rows = [
        Result(f"{name}: kB on the wire", round(size / 1000, 2), "kB", peer=_kilo(known)),
        Result(f"{name}: of the full file", round(100 * size / ours.new_bytes, 3), "%"),
        Result(f"{name}: above the entropy of its residuals", above, "%"),
        Result(f"{name}: encoding 5 MB", round(5 * ours.encode_seconds / mega, 3), "s", goal=speed),
        Result(f"{name}: decoding 100 MB", round(100 * ours.decode_seconds / mega, 3), "s", goal=speed),
        Result(f"{name}: memory of the reader", ours.reader_bytes / 1e6, "MB", goal=ours.reader_limit_bytes / 1e6),
    ]
    if known:
        rows.append(Result(f"{name}: above the best peer", size - min(known.values()), "B", goal=_SLACK_BYTES))
    if by_bytes:
        rows.append(Result(f"{name}: of the best byte delta", round(size / by_bytes, 4), "", goal=part))
    if by_weights:
        rows.append(Result(f"{name}: of the best weight codec", round(size / by_weights, 4), "", goal=aware))
    return rows


def _kilo(known: Mapping[str, int]) -> dict[str, float]:
    return {peer: round(size / 1000, 2) for peer, size in known.items()}


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


if __name__ == "__main__":
    sys.exit(main())
