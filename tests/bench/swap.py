"""Swaps under a paced load: failed requests, gaps, latencies during a load, memory, beside swaps that load nothing.

python -m tests.bench.swap [--quick] [--json] [--no-peers]

A small model alternates between two versions a thousand times. Then a version with 150 MB of weights is swapped in
again and again, in turn with a sham swap: the same orders in the same rhythm, but for what is there already. Only
the ratio of the two tells what a load costs; the rest is the machine. The client asks 200 times a second at fixed
times over TCP, whether or not answers came, in a process of its own and, where it may, in front of all others, so
that it measures the endpoint and not its own waiting.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from agent.serving.supervisor import ModelFile
from tests.agent.serving.kit import children_of
from tests.bench import load, models, peers
from tests.bench.device import Device
from tests.bench.document import Result, median, options, tell

RATE: Final = 200.0
PAUSE_SECONDS: Final = 1.5
WARM_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 1200.0
_CLIENT_PRIORITY: Final = 3  # above the front, where the system grants it


@dataclass(frozen=True)
class Window:
    """What was done between two moments (time.monotonic)."""

    kind: str
    begin: float
    end: float

    @property
    def milliseconds(self) -> float:
        return (self.end - self.begin) * 1e3


def main() -> int:
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--no-peers", action="store_true", help="do not install and measure other servers")
    parser.add_argument("--peers", type=Path, default=peers.home(), help="folder where they are installed")
    asked = parser.parse_args()
    swaps, heavy, others = (100, 4, 2) if asked.quick else (1000, 12, 6)
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        results = small(Path(name), swaps)
        own, gap = large(Path(name), heavy)
        results += own
        for kind in () if asked.no_peers else peers.ALL:
            results += beside(kind(asked.peers), Path(name), others, gap)
    return tell("swap", results, as_json=asked.json)


# The load


@contextmanager
def asking(address: str, folder: Path, *, binary: bool = True) -> Iterator["Asking"]:
    """A paced load that goes on until `Asking.stop`."""
    flag = folder / "asking"
    flag.touch()
    request = load.infer("digits", {"image": models.DIGIT}) if binary else in_json()
    with load.elsewhere() as run:
        found = Asking(flag, run(ask_urgently, address, [request], rate=RATE, seconds=_LONGEST_SECONDS, flag=flag))
        try:
            yield found
        finally:
            flag.unlink(missing_ok=True)


@dataclass
class Asking:
    flag: Path
    future: Future[load.Load]

    def stop(self) -> load.Load:
        self.flag.unlink(missing_ok=True)
        return self.future.result(120)


def ask_urgently(address: str, requests: Sequence[bytes], **settings: Any) -> load.Load:
    """`load.paced`, not to be held up by what it measures."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_CLIENT_PRIORITY))
    return load.paced(address, requests, **settings)


def in_json() -> bytes:
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": models.DIGIT.ravel().tolist()}
    body = json.dumps({"inputs": [entry]}).encode()
    return load.http("/v2/models/digits/infer", body, method="POST", headers={"Content-Type": "application/json"})


def during(seen: load.Load, window: Window, percent: float = 99) -> float:
    """This percentile of the latencies, in seconds, of requests due in the window."""
    inside = (seen.starts >= window.begin) & (seen.starts < window.end) & (seen.statuses == 200)
    return load.percentile(seen.latencies[inside], percent)


def gap_ms(seen: load.Load, window: Window) -> float:
    """Longest time between two right answers, of which at least one came in the window."""
    ends = np.sort((seen.starts + seen.latencies)[seen.statuses == 200])
    first = int(np.searchsorted(ends, window.begin)) - 1
    last = int(np.searchsorted(ends, window.end)) + 1
    if first < 0 or last > len(ends):
        return float("inf")  # no answer before it or none after it
    return float(np.diff(ends[first:last]).max()) * 1e3


# Swaps


def swap(device: Device, new: ModelFile, old: ModelFile) -> Window:
    begin = time.monotonic()
    device.load(new)
    device.unload(old.model, old.version)
    return Window("swap", begin, time.monotonic())


def sham(device: Device, serving: ModelFile, loading_seconds: float) -> Window:
    """The orders of a swap, for what is there already, and as long a wait as a load takes."""
    begin = time.monotonic()
    device.load(serving, route=False)
    time.sleep(loading_seconds)
    device.route(serving.model, serving.version)
    device.unload(serving.model, "none")
    return Window("sham", begin, time.monotonic())


def idle(seconds: float) -> Window:
    begin = time.monotonic()
    time.sleep(seconds)
    return Window("idle", begin, time.monotonic())


def memory_bytes(device: Device) -> int:
    """Proportional set size of all processes of the endpoint."""
    total = 0
    for pid in (device.pid, *children_of(device.pid)):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def small(folder: Path, count: int) -> list[Result]:
    """Two versions of a small model in turn."""
    pair = [models.digits(folder, "1", seed=1), models.digits(folder, "2", seed=2)]
    with Device(folder / "small") as device:
        device.load(pair[0])
        with asking(device.tcp, folder) as client:
            time.sleep(WARM_SECONDS)
            for number in range(10):  # what is allocated once is not growth
                swap(device, pair[(number + 1) % 2], pair[number % 2])
            before = memory_bytes(device)
            quiet = [idle(0.1) for _ in range(50)]
            windows = [swap(device, pair[(number + 1) % 2], pair[number % 2]) for number in range(count)]
            quiet += [idle(0.1) for _ in range(50)]
            after = memory_bytes(device)
            seen = client.stop()
    gaps, idle_gaps = ([gap_ms(seen, window) for window in kind] for kind in (windows, quiet))
    return [
        Result(f"failed requests in {count} swaps ({len(seen.statuses)} asked)", seen.failed, "", 0),
        Result("longest gap at any of them, beyond the usual longest", max(gaps) - median(idle_gaps), "ms", 20),
        Result("  median gap at a swap (5 ms apart are asked)", median(gaps), "ms", peer={"idle": median(idle_gaps)}),
        Result("  longest gap without a swap", max(idle_gaps), "ms"),
        Result("one swap: load, route, unload", median([window.milliseconds for window in windows]), "ms"),
        Result("memory after them against before", (after / before - 1) * 100, "%", 5),
        Result("  before", before / 1e6, "MB"),
    ]


def large(folder: Path, count: int) -> tuple[list[Result], float]:
    """150 MB of weights swapped in, in turn with sham swaps; also the median of the longest gaps, in milliseconds."""
    light, heavy = models.digits(folder, "1"), models.heavy(folder)
    windows: list[Window] = []
    outside: list[Window] = []
    with Device(folder / "large") as device:
        device.load(light)
        with asking(device.tcp, folder) as client:
            time.sleep(WARM_SECONDS)
            swap(device, heavy, light)  # the file is in memory from now on
            swap(device, light, heavy)
            loading = 0.3
            for number in range(2 * count):
                outside.append(idle(PAUSE_SECONDS))
                if number % 2:
                    windows.append(sham(device, light, loading))
                    continue
                windows.append(swap(device, heavy, light))
                loading = (windows[-1].end - windows[-1].begin) * 0.9
                idle(PAUSE_SECONDS / 2)
                swap(device, light, heavy)
            seen = client.stop()
    gap = statistics.median(gap_ms(seen, window) for window in windows if window.kind == "swap")
    return judge(seen, windows, outside), gap


def judge(seen: load.Load, windows: Sequence[Window], outside: Sequence[Window]) -> list[Result]:
    ratios: dict[str, list[float]] = {"swap": [], "sham": []}
    gaps: dict[str, list[float]] = {"swap": [], "sham": []}
    tails: dict[str, list[float]] = {"swap": [], "sham": []}
    for window, before in zip(windows, outside, strict=True):
        tails[window.kind].append(during(seen, window) * 1e3)
        ratios[window.kind].append(during(seen, window) / during(seen, before))
        gaps[window.kind].append(gap_ms(seen, window))
    idle_gap = statistics.median(gap_ms(seen, window) for window in outside)
    took = median([window.milliseconds for window in windows if window.kind == "swap"])
    inflated, usual = statistics.median(ratios["swap"]), statistics.median(ratios["sham"])
    number = len(ratios["swap"])
    spread = {f"{kind} {name}": value for kind in ratios for name, value in zip(
        ("least", "most"), (min(ratios[kind]), max(ratios[kind])), strict=True)}  # fmt: skip
    return [
        Result(f"150 MB: failed requests in {2 * number} swaps and {number} shams", seen.failed, "", 0),
        Result("150 MB: p99 during / outside, against that of a sham", round(inflated / usual, 3), "x", 1.25),
        Result("150 MB: p99 during / outside", round(inflated, 3), "x", peer={"sham": round(usual, 3)} | spread),
        Result("150 MB: p99 during", median(tails["swap"]), "ms", peer={"sham": median(tails["sham"])}),
        Result("150 MB: longest gap at any swap, beyond the usual", max(gaps["swap"]) - idle_gap, "ms", 20),
        Result("150 MB: one swap", took, "ms"),
    ]


def beside(peer: peers.Peer, folder: Path, count: int, ours_ms: float) -> list[Result]:
    """The same swap of 150 MB under the same load on another server, by its own way of loading over HTTP."""
    if not peer.swaps:
        print(f"{peer.name} is left out: it cannot replace a model that is loaded", file=sys.stderr)
        return []
    light, heavy = models.digits(folder, "1"), models.heavy(folder)
    windows: list[Window] = []
    try:
        peer.install()
        with peer.serving([light]), asking(peer.http, folder, binary=peer.binary) as client:
            time.sleep(WARM_SECONDS)
            for file in [heavy, light] * (count + 1):
                begin = time.monotonic()
                peer.load(file)
                windows.append(Window(file.version, begin, time.monotonic()))
                time.sleep(PAUSE_SECONDS)
            seen = client.stop()
    except peers.Missing as missing:
        print(f"{peer.name} is left out: {missing}", file=sys.stderr)
        return []
    measured = [window for window in windows[2:] if window.kind == "heavy"]
    gaps = [gap_ms(seen, window) for window in measured]
    took = median([window.milliseconds for window in measured])
    goal = 0.1 if isinstance(peer, peers.Triton) else None
    return [
        Result(
            f"150 MB: longest gap against {peer.name}'s, medians",
            round(ours_ms / statistics.median(gaps), 4),
            "x",
            goal,
        ),
        Result(f"  {peer.name}: longest gap, median", median(gaps), "ms", peer={"ours": round(ours_ms, 2)}),
        Result(f"  {peer.name}: one swap", took, "ms", peer={"failed requests": float(seen.failed)}),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
