"""A fine-tune of 45 MB reaches a device by HTTP, through the broker alone, from a bundle, and from a peer whose manager
is cut off after he released the key: bytes on the wire, as planned and as counted, and how long it took.

python -m tests.bench.transports [--quick] [--json]

Manager, broker (mosquitto) and agents are processes of their own. All devices hold the release before, so that the
delta is what travels, but for the bundle, which carries full files. `--quick`: 5 MB.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from fleet.demo import training
from tests.bench.document import Result, arguments, tell
from tests.simulators.counting_proxy import CountingProxy
from tests.simulators.every_way import BROKER_ONLY, SHARES, bring, every_way, knows_peers, pieces_bytes, start, told
from tests.simulators.fleet import Fleet
from tests.simulators.storm import mosquitto

OLD, NEW = "1.0.0", "1.1.0"
#: Of a weight, in one step of training with a small rate.
STEP = 1e-4


def _tuned(model: bytes) -> bytes:
    """Every weight a little further, as after more training."""
    found, chance = onnx.load_from_string(model), np.random.default_rng(0)
    for tensor in found.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 10:
            moved = (values + STEP * np.std(values) * chance.normal(size=values.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return bytes(found.SerializeToString())


class Way:
    """One device, the way to its manager, and what was seen there."""

    def __init__(self, fleet: Fleet, stack: ExitStack, name: str) -> None:
        self.fleet, self.name, self.device = fleet, name, f"cam-{name}"
        self.armed = False
        self.proxy = stack.enter_context(CountingProxy(fleet.url, cut_after=self._released))
        more = {"update": BROKER_ONLY} if name == "mqtt" else {"peers": SHARES} if name in {"manager", "peer"} else {}
        start(fleet, self.device, self.proxy.url, **more)

    def _released(self, path: str) -> bool:
        return self.armed and ".model-digits.json" in path

    def roll_out(self, version: str) -> None:
        ended = self.fleet.ended(self.fleet.start_rollout(version, "--target", self.device))
        assert ended["state"] == "completed", self.fleet.household.log(self.device, 60)


def _measured(way: Way, on_wire: int, seconds: float) -> list[Result]:
    report = told(way.fleet, way.device, NEW)
    planned, counted = report["total_bytes"], report["sources"]
    assert set(counted) == {way.name}, counted
    return [
        Result(f"{way.name}: planned", planned, "B"),
        Result(f"{way.name}: counted by the device", counted[way.name], "B"),
        Result(
            f"{way.name}: on the wire beyond the plan", abs(on_wire - planned), "B", 0 if way.name != "mqtt" else 2e5
        ),
        Result(f"{way.name}: rollout, self-test and probation included", seconds, "s"),
    ]


def _all_ways(folder: Path, port: int, hidden: int) -> list[Result]:
    with ExitStack() as stack:
        fleet = stack.enter_context(every_way(folder / "fleet", port))
        ways = {name: Way(fleet, stack, name) for name in ("manager", "peer", "mqtt", "bundle")}
        old = training.train(fleet.digits.train, hidden=hidden, rounds=1, seed=0)
        fleet.publish_bytes(OLD, old, fleet.digits.reference)
        assert fleet.ended(fleet.start_rollout(OLD))["state"] == "completed"
        fleet.publish_bytes(NEW, _tuned(old), fleet.digits.reference)
        results = [Result("file", len(old), "B")]
        for name, way in ways.items():
            began, before = time.monotonic(), way.proxy.chunk_bytes
            if name == "bundle":
                way.proxy.cut = True
                on_wire = bring(fleet, way.device, f"digits@{NEW}", folder / "usb")
            elif name == "mqtt":
                way.proxy.cut, sent = True, pieces_bytes(fleet)
                way.roll_out(NEW)
                on_wire = pieces_bytes(fleet) - sent
            else:
                if name == "peer":
                    knows_peers(fleet, way.device)
                    way.armed = True
                way.roll_out(NEW)
                on_wire = way.proxy.chunk_bytes - before
                if name == "peer":  # what the manager served to it is nothing; the peer's word is the device's count
                    results.append(Result("peer: chunks from the manager", on_wire, "B", 0))
                    on_wire = told(fleet, way.device, NEW)["sources"].get("peer", 0)
            results += _measured(way, on_wire, time.monotonic() - began)
        return results


def main() -> int:
    chosen = arguments("every way of a release")
    program = mosquitto()
    if program is None:
        raise SystemExit("this needs mosquitto: make system-deps")
    folder = Path(tempfile.mkdtemp(prefix="flotilla-ways-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    broker = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        results = _all_ways(folder, port, 16_000 if chosen.quick else 150_000)
    finally:
        broker.terminate()
        broker.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
    return tell("transports", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
