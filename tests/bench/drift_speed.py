"""How long all statistics of a large fleet take, beside the drift libraries that people install.

python -m tests.bench.drift_speed [--quick] [--json]

Ours: counts of 100,000 devices x 20 features against the reference: every distance, components and tails, on one core.
Peers (`drift_peers`): their own functions on raw samples of one feature, 1000 against 10,000. They start from raw
samples and we from counts; raw samples never arrive at a manager. Like is set beside like: one distance (PSI; JS, W1 or
KS where a peer has no PSI) beside PSI alone, and all that a peer has of PSI, KL, JS, Wasserstein and KS, two at least,
beside all sixteen of ours.
"""

import resource
import sys
import time
from typing import Final

import numpy as np

from fleet.telemetry import calibrated, drift
from fleet.telemetry.dispersion import Dispersion
from tests.bench.document import Result, arguments, tell
from tests.bench.drift_alarms import BINS, FEATURES, board_of
from tests.bench.drift_peers import LIBRARIES
from tests.bench.peers import Missing

DEVICES: Final = 100_000
ROUND: Final = 1000  # devices at once: bounds the memory
GOAL_SECONDS: Final = 10.0
GOAL_MEGABYTES: Final = 2000.0
GOAL_RATIO: Final = 1000.0


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    devices = DEVICES // (20 if asked.quick else 1)
    seconds = ours(devices) * DEVICES / devices
    rate = DEVICES * FEATURES / seconds
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates = {}
    for library in LIBRARIES:
        try:
            library.install()
            rates[library.name] = library.rates()
        except Missing as reason:
            print(f"skipped {library.name}: {reason}", file=sys.stderr)
    one = {
        name: round(next(found[it] for it in ("psi", "js", "w1", "ks", "all") if it in found), 1)
        for name, found in rates.items()
    }
    several = {f"{name} ({len(found) - 1})": round(found["all"], 1) for name, found in rates.items() if len(found) > 2}
    alike = psi_rate(devices)
    results = [
        Result("all statistics of 100,000 devices x 20 features, CPU", seconds, "s", GOAL_SECONDS),
        Result("most memory of the process", megabytes, "MB", GOAL_MEGABYTES),
        Result("PSI alone (and KL), one core", alike, "/s", None, one),
        Result("all sixteen statistics, one core", distances_rate(devices), "/s", None, several),
        Result("all of it: statistics, alarm and tails, one core", rate, "/s", None),
    ]
    for what, peers, ours_ in (("one distance", one, alike), ("all distances", several, distances_rate(devices))):
        if peers:
            share = GOAL_RATIO * max(peers.values()) / ours_
            results.append(Result(f"{what}: a thousand times the fastest peer, as a share of ours", share, "of 1", 1.0))
    return tell("drift_speed", results, as_json=asked.json)


def ours(devices: int) -> float:
    """CPU seconds for every distance, the components, the residual and the three tails of a detection window."""
    rng = np.random.default_rng(1)
    board = board_of(rng)
    layout = board.layout
    rows = min(ROUND, devices)
    vectors = np.zeros((rows, FEATURES, BINS + 1), dtype=np.int64)
    vectors[:, :, :BINS] = rng.poisson(1000 / BINS, (rows, FEATURES, BINS))
    vectors = vectors.reshape(rows, layout.size)
    reference = calibrated.Reference.of(layout.vector[None], layout)
    expected = np.broadcast_to(layout.bins.sums(layout.vector[None]), (rows, FEATURES, BINS)).reshape(-1, BINS)
    widths, numbers = np.tile(layout.widths, (rows, 1)), np.tile(layout.numbers, rows)
    spread = Dispersion.none(rows, FEATURES)
    began = time.process_time()
    for _ in range(devices // rows):
        counts = layout.bins.sums(vectors).reshape(-1, BINS)
        drift.statistics(counts, expected, widths, numbers, 5e-5)
        calibrated.window(vectors, reference, layout, spread, hours=24)
    return time.process_time() - began


def psi_rate(devices: int) -> float:
    """Features a second of PSI (and KL, which comes along), from counts as the manager has them."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(1000 / BINS, (drift.BLOCK, BINS)).astype(np.float64)
    expected, bins = counts[::-1].copy(), np.full(drift.BLOCK, BINS)
    rounds = max(1, devices * FEATURES // drift.BLOCK)
    began = time.process_time()
    for _ in range(rounds):
        drift.stability(counts, expected, bins)
    return rounds * drift.BLOCK / (time.process_time() - began)


def distances_rate(devices: int) -> float:
    """Features a second of all of `drift.FIELDS`."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(1000 / BINS, (16 * drift.BLOCK, BINS)).astype(np.float64)
    expected, bins, widths = counts[::-1].copy(), np.full(len(counts), BINS), np.full(counts.shape, 0.1)
    rounds = max(1, devices * FEATURES // len(counts))
    began = time.process_time()
    for _ in range(rounds):
        drift.statistics(counts, expected, widths, bins, 5e-5)
    return rounds * len(counts) / (time.process_time() - began)


if __name__ == "__main__":
    raise SystemExit(main())
