"""What probing costs the answers: the same requests at an endpoint that probes and at one that does not.

python -m tests.bench.probes [--quick] [--json]

Both serve at the same time and are asked in turns, at a fixed rate, as applications do: what waits behind probing is
part of a latency. A figure is the median over the rounds; the overhead is taken within a round.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.bench import load, models
from tests.bench.device import Device
from tests.bench.document import Result, arguments, median, tell

GOAL_PERCENT: Final = 2.0  # of p99
RATE: Final = 200.0  # requests a second


def main() -> int:
    chosen = arguments("what probing costs the answers")
    rounds, seconds = (3, 2.0) if chosen.quick else (15, 6.0)
    took: dict[str, list[float]] = defaultdict(list)
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
                        took[which].append(found.microseconds(99))
                        took[f"{which} p50"].append(found.microseconds(50))
    overheads = [100 * (a / b - 1) for a, b in zip(took["on"], took["off"], strict=True)]
    results = [
        Result("p99 of inference, probes on", median(took["on"]), "us", peer={"off": median(took["off"])}),
        Result("p50 of inference, probes on", median(took["on p50"]), "us", peer={"off": median(took["off p50"])}),
        Result("p99 of inference, probes on over probes off", median(overheads), "%", GOAL_PERCENT),
    ]
    return tell("probes", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
