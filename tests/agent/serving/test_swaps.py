"""Planned swaps, one after the other, under a paced load: nobody notices, and nothing grows."""

import time
from pathlib import Path
from typing import Final

from tests.bench import load, models
from tests.bench.device import Device
from tests.bench.swap import memory_bytes, swap

SWAPS: Final = 200
RATE: Final = 200.0
#: Until every place of the arena was used once and every allocator has its usual size.
WARM_SWAPS: Final = 20
#: Beside 5 %: a worker may be ending, or a page more or less be shared, at the moment of the look.
SLACK_BYTES: Final = 4_000_000


def test_two_hundred_swaps_under_two_hundred_requests_a_second_fail_no_request_and_keep_no_memory(
    tmp_path: Path,
) -> None:
    pair = [models.digits(tmp_path, "1", seed=1), models.digits(tmp_path, "2", seed=2)]
    flag = tmp_path / "asking"
    flag.touch()
    request = load.infer("digits", {"image": models.DIGIT})
    with Device(tmp_path / "state") as device, load.elsewhere() as run:
        device.load(pair[0])
        asking = run(load.paced, device.tcp, [request], rate=RATE, seconds=300.0, flag=flag)
        began = time.monotonic()
        for number in range(SWAPS):
            swap(device, pair[(number + 1) % 2], pair[number % 2])
            if number + 1 == WARM_SWAPS:
                before = memory_bytes(device)
        took = time.monotonic() - began
        after = memory_bytes(device)
        flag.unlink()
        seen = asking.result(60)
    assert seen.failed == 0
    assert len(seen.statuses) > 0.9 * RATE * took
    assert after < 1.05 * before + SLACK_BYTES
