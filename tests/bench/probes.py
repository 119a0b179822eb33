"""What probing costs the answers: the same requests at an endpoint that probes and at one that does not.

python -m tests.bench.probes [--quick] [--json]

Both serve at the same time and are asked in turns, at a fixed rate, as applications do: what waits behind probing is
part of a latency. Percentiles are over the requests of all rounds; on a machine that is shared the p99 needs many.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np

from tests.bench import load, models
from tests.bench.device import Device
from tests.bench.document import Result, arguments, tell

GOAL_PERCENT: Final = 2.0  # of p99
RATE: Final = 200.0  # requests a second


def main() -> int:
    chosen = arguments("what probing costs the answers")
    rounds, seconds = (3, 2.0) if chosen.quick else (12, 4.0)
    took: dict[str, list[np.ndarray]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="flotilla-probes-") as name:
        folder = Path(name)
        with Device(folder / "on") as on, Device(folder / "off", probes="off") as off:
            for device in (on, off):
                device.load(models.digits(folder))
            request = load.infer("digits", {"image": models.DIGIT})
            for turn in range(rounds + 1):
                order = (("on", on), ("off", off)) if turn % 2 else (("off", off), ("on", on))
                for which, device in order:
                    found = load.paced(device.unix, [request], rate=RATE, seconds=seconds)
                    if found.failed:
                        raise SystemExit(f"{found.failed} requests failed with probes {which}")
                    if turn:  # the first is for warming up
                        took[which].append(found.latencies * 1e6)
    on_, off_ = (np.concatenate(took[which]) for which in ("on", "off"))
    p50, p99 = ((load.percentile(on_, share), load.percentile(off_, share)) for share in (50, 99))
    results = [
        Result("p50 of inference, probes on", p50[0], "us", peer={"off": p50[1]}),
        Result("p99 of inference, probes on", p99[0], "us", peer={"off": p99[1]}),
        Result("p99 of inference, probes on over probes off", 100 * (p99[0] / p99[1] - 1), "%", GOAL_PERCENT),
    ]
    return tell("probes", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
