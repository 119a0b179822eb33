"""What probing costs the answers: the same requests at an endpoint that probes and at one that does not.

python -m tests.bench.probes [--quick] [--json]

Both serve at the same time and are asked in turns of half a second, at a fixed rate, as applications do: what waits
behind probing is part of a latency. Both are started anew several times. The bounds hold what 95 of 100 repetitions
would find (`tests.bench.paired`). Where it may, it goes before other programs, so that their work is not in the tail.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from tests.bench import load, models, paired
from tests.bench.device import Device
from tests.bench.document import Result, arguments, tell

GOAL_PERCENT: Final = 2.0  # of p99
RATE: Final = 200.0  # requests a second
BLOCK_SECONDS: Final = 0.5
WARM_SECONDS: Final = 1.0
FIRST: Final = -15  # niceness of all that takes part


def main() -> int:
    chosen = arguments("what probing costs the answers")
    lives, pairs = (2, 4) if chosen.quick else (7, 22)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
    work: dict[str, list[float]] = {"on": [], "off": []}
    taken = [_life(number, pairs, work) for number in range(lives)]
    on, off = (np.concatenate([pair[side] for life in taken for pair in life]) for side in (0, 1))
    results = [
        Result(
            f"p{share} of inference, probes on",
            load.percentile(on, share),
            "us",
            peer={"off": load.percentile(off, share)},
        )
        for share in (50, 99)
    ]
    for share in (50, 99):
        found = paired.excess(taken, share)
        what = f"p{share} of inference, probes on over probes off"
        goal = GOAL_PERCENT if share == 99 else None
        results += [
            Result(what, found.value, "%", goal),
            Result(f"{what}, for certain at least", found.low, "%"),
            Result(f"{what}, for certain at most", found.high, "%"),
        ]
    requests = lives * pairs * RATE * BLOCK_SECONDS
    on_us, off_us = (1e6 * sum(work[which]) / requests for which in ("on", "off"))
    results.append(Result("processor time for a request, probes on", on_us, "us", peer={"off": off_us}))
    return tell("probes", results, as_json=chosen.json)


def _life(number: int, pairs: int, work: dict[str, list[float]]) -> list[paired.Pair]:
    """One pair of endpoints from start to end; which of them is asked first changes each time."""
    with tempfile.TemporaryDirectory(prefix="flotilla-probes-") as name:
        folder = Path(name)
        with Device(folder / "on") as on, Device(folder / "off", probes="off") as off:
            for device in (on, off):
                device.load(models.digits(folder))
                _asked(device, WARM_SECONDS)
            taken, before = [], (_worked(on), _worked(off))
            for turn in range(pairs):
                first, second = (on, off) if (turn + number) % 2 else (off, on)
                found = {device: _asked(device, BLOCK_SECONDS) for device in (first, second)}
                taken.append((found[on], found[off]))
            work["on"].append(_worked(on) - before[0])
            work["off"].append(_worked(off) - before[1])
            return taken


def _worked(device: Device) -> float:
    """Seconds of processor time that the endpoint and all its processes took so far."""
    endpoint = psutil.Process(device.pid)
    times = [process.cpu_times() for process in (endpoint, *endpoint.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _asked(device: Device, seconds: float) -> np.ndarray:
    """Latencies in microseconds."""
    found = load.paced(device.unix, [load.infer("digits", {"image": models.DIGIT})], rate=RATE, seconds=seconds)
    if found.failed:
        raise SystemExit(f"{found.failed} requests failed")
    return found.latencies * 1e6


if __name__ == "__main__":
    sys.exit(main())
