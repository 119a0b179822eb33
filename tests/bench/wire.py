"""Bytes that an hour of a device takes on the wire, counted at a real broker: payloads, signed, as they left it.

python -m tests.bench.wire [--quick] [--json]

Twenty features of 18 bins and the host figures of a Jetson, at 100 to 100,000 requests an hour.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.bench.document import Result, arguments, tell
from tests.shared.test_compact import NAMES, window
from tests.simulators.captured import captured
from tests.simulators.storm import mosquitto

NUMBERS = (100, 1000, 10_000, 100_000)
HOUR_BYTES = 700.0
FEATURE_BYTES = 34.0


def main() -> int:
    chosen = arguments("bytes of an hour on the wire")
    if mosquitto() is None:
        raise SystemExit("this needs mosquitto: make system-deps")
    told = [window(number, names) for number in NUMBERS for names in (NAMES, ())]
    with tempfile.TemporaryDirectory(prefix="flotilla-wire-") as folder:
        payloads = asyncio.run(captured(Path(folder), told))
    results = []
    for number, said, whole, none in zip(NUMBERS, told[::2], payloads[::2], payloads[1::2], strict=True):
        goal = HOUR_BYTES if number <= 10_000 else None
        peer = {"as JSON": len(said.to_bytes()) + 65}
        results += [
            Result(f"an hour of {number} requests", len(whole), "bytes", goal, peer),
            Result(
                f"of these for a feature, at {number} requests",
                (len(whole) - len(none)) / len(NAMES),
                "bytes",
                FEATURE_BYTES,
            ),
        ]
    return tell("wire", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
