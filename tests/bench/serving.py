"""What answering costs: over the model itself, under many clients, for large frames, and beside other servers.

python -m tests.bench.serving [--quick] [--json]

Rounds take turns: each asks every server, and the model itself in this process, so that all rows see the same
machine. A figure is the median over the rounds of the medians within them; an overhead is taken within a round.
"""

import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime

from agent.serving.supervisor import ModelFile
from tests.agent.serving.kit import children_of
from tests.bench import load, models
from tests.bench.device import Device
from tests.bench.document import Result, arguments, median, tell

GOAL_UNIX_US: Final = 100.0  # over session.run
GOAL_TCP_US: Final = 120.0

Run = Callable[..., Future[load.Load]]


class Server(Protocol):
    """Something that speaks the protocol: ours, or a peer. It serves `digits` and `frame` between start and stop."""

    name: str

    def start(self, folder: Path, files: Sequence[ModelFile]) -> None:
        """Raises RuntimeError with the reason when it cannot be had here; it is then skipped by name."""

    def stop(self) -> None: ...

    @property
    def addresses(self) -> Mapping[str, str]:
        """Way in ("unix", "tcp") -> address for tests.bench.load."""

    @property
    def pids(self) -> Sequence[int]:
        """All its processes."""

    def frame_request(self) -> tuple[str, bytes] | None:
        """Address and request of a frame in shared memory that is registered already; None: it cannot."""


class Ours:
    """The endpoint of this repository."""

    name = "flotilla"

    def __init__(self) -> None:
        self._device: Device | None = None

    def start(self, folder: Path, files: Sequence[ModelFile]) -> None:
        self._device = Device(folder / self.name)
        for file in files:
            self._device.load(file)

    def stop(self) -> None:
        if self._device is not None:
            self._device.close()

    @property
    def addresses(self) -> Mapping[str, str]:
        assert self._device is not None
        return {"unix": self._device.unix, "tcp": self._device.tcp}

    @property
    def pids(self) -> Sequence[int]:
        assert self._device is not None
        return [self._device.pid, *children_of(self._device.pid)]

    def frame_request(self) -> tuple[str, bytes] | None:
        return shared_frame(self.addresses["unix"], Path("/dev/shm"))


#: Other servers, each a Server. They are asked in the same rounds, and told beside our rows.
PEERS: Sequence[Callable[[], Server]] = ()


def shared_frame(address: str, memory: Path) -> tuple[str, bytes] | None:
    """Register a frame in system shared memory. None when the server does not take it."""
    key, size = f"flotilla-bench-{time.monotonic_ns()}", models.FRAME.nbytes
    path = memory / key
    path.write_bytes(models.FRAME.tobytes())
    client = load.Client(address)
    try:
        told = f'{{"key":"/{key}","offset":0,"byte_size":{size}}}'.encode()
        status = client.ask(load.http(f"/v2/systemsharedmemory/region/{key}/register", told, method="POST"))
    finally:
        client.close()
        if client.status != 200:
            path.unlink()
    if status != 200:
        return None
    entry = {"name": "frame", "datatype": "FP32", "shape": list(models.FRAME.shape)}
    where = {"shared_memory_region": key, "shared_memory_byte_size": size}
    document = {"inputs": [entry | {"parameters": where}], "parameters": {"binary_data_output": True}}
    return address, load.infer_document("frame", document)


@dataclass
class Round:
    """What is asked of each server in a round."""

    seconds: float
    run: Run
    seen: dict[str, list[float]]

    def ask(self, row: str, address: str, request: bytes, connections: int = 1) -> load.Load:
        found = self.run(load.closed, address, [request], connections=connections, seconds=self.seconds).result()
        if found.failed:
            raise SystemExit(f"{row}: {found.failed} of {len(found.statuses)} requests failed")
        return found

    def note(self, row: str, value: float) -> None:
        self.seen[row].append(value)


def alone(file: ModelFile, seconds: float) -> float:
    """Median of session.run in microseconds, as the worker calls it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in file.outputs]
    times: list[int] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.perf_counter_ns()
        session.run(names, {"image": models.DIGIT})
        times.append(time.perf_counter_ns() - begin)
    return float(np.median(times)) / 1e3


def measure(server: Server, file: ModelFile, now: Round) -> None:
    """One server in one round."""
    name = server.name
    digit = load.infer("digits", {"image": models.DIGIT})
    for way, address in server.addresses.items():
        floor = alone(file, now.seconds / 4)
        now.note(f"{name} session.run", floor)
        before = cpu_us(server.pids)
        found = now.ask(f"{name} {way}", address, digit)
        now.note(f"{name} {way} cpu", (cpu_us(server.pids) - before) / len(found.statuses))
        now.note(f"{name} {way} p50", found.microseconds(50))
        now.note(f"{name} {way} p99", found.microseconds(99))
        now.note(f"{name} {way} over", found.microseconds(50) - floor)
        now.note(f"{name} {way} live", now.ask(f"{name} live", address, load.http("/v2/health/live")).microseconds(50))
    tcp = server.addresses["tcp"]
    for connections in (8, 32):
        found = now.ask(f"{name} c={connections}", tcp, digit, connections)
        now.note(f"{name} tcp rate {connections}", found.rate)
    frame = load.infer("frame", {"frame": models.FRAME})
    now.note(f"{name} frame", now.ask(f"{name} frame", next(iter(server.addresses.values())), frame).microseconds(50))
    shared = server.frame_request()
    if shared is not None:
        now.note(f"{name} shared frame", now.ask(f"{name} shared frame", *shared).microseconds(50))


def cpu_us(pids: Sequence[int]) -> float:
    """Processor time of these processes so far."""
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0]) / 1e3
    return total


@contextlib.contextmanager
def running(folder: Path, files: Sequence[ModelFile]) -> Iterator[list[Server]]:
    """Ours and every peer that can be had."""
    servers: list[Server] = []
    with contextlib.ExitStack() as stack:
        for make in (Ours, *PEERS):
            server: Server = make()
            stack.callback(server.stop)
            try:
                server.start(folder, files)
            except RuntimeError as error:
                if make is Ours:
                    raise
                skip(f"{server.name}: {error}")
                continue
            servers.append(server)
        yield servers


def skip(text: str) -> None:
    print(f"skipped: {text}", flush=True)


def rows(seen: Mapping[str, Sequence[float]], peers: Sequence[str]) -> list[Result]:
    def one(what: str, key: str, unit: str, goal: float | None = None) -> list[Result]:
        if not seen.get(f"flotilla {key}"):
            return []
        beside = {peer: median(seen[f"{peer} {key}"]) for peer in peers if seen.get(f"{peer} {key}")}
        return [Result(what, median(seen[f"flotilla {key}"]), unit, goal, beside)]

    return [
        *one("digits 64->10: session.run in process, p50", "session.run", "us"),
        *one("over session.run, Unix socket, c=1, p50", "unix over", "us", GOAL_UNIX_US),
        *one("over session.run, TCP, c=1, p50", "tcp over", "us", GOAL_TCP_US),
        *one("whole request, Unix socket, c=1, p99", "unix p99", "us"),
        *one("whole request, TCP, c=1, p50", "tcp p50", "us"),
        *one("whole request, TCP, c=1, p99", "tcp p99", "us"),
        *one("health/live, Unix socket (no worker), p50", "unix live", "us"),
        *one("processor time per request, Unix socket, c=1", "unix cpu", "us"),
        *one("processor time per request, TCP, c=1", "tcp cpu", "us"),
        *one("requests per second, TCP, c=8", "tcp rate 8", "1/s"),
        *one("requests per second, TCP, c=32", "tcp rate 32", "1/s"),
        *one("frame of 4.9 MB in the body, c=1, p50", "frame", "us"),
        *one("frame of 4.9 MB in shared memory, c=1, p50", "shared frame", "us", 150.0),
    ]


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    seen: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name, load.elsewhere() as run:
        folder = Path(name)
        files = [models.digits(folder), models.frame(folder)]
        with running(folder, files) as servers:
            now = Round(0.5 if asked.quick else 2.0, run, seen)
            for _ in range(3 if asked.quick else 8):
                for server in servers:
                    measure(server, files[0], now)
    if "flotilla shared frame" not in seen and not asked.json:
        skip("the frame in shared memory: this endpoint does not register regions")
    results = rows(seen, [server.name for server in servers if server.name != Ours.name])
    return tell("serving", results, as_json=asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
