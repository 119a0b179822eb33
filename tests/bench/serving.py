"""What answering costs: over the model itself, under many clients, for large frames, and beside other servers.

python -m tests.bench.serving [--quick] [--json] [--no-peers]

Rounds take turns: each asks every server, and the model itself in this process, so that all rows see the same
machine. A figure is the median over the rounds of the medians within them; an overhead is taken within a round.
"""

import contextlib
import json
import sys
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
from tests.bench import load, models, peers, perf_analyzer
from tests.bench.device import Device
from tests.bench.document import Result, median, options, tell

GOAL_UNIX_US: Final = 100.0  # over session.run
GOAL_TCP_US: Final = 120.0
GOAL_FRAME_US: Final = 150.0  # in shared memory, whole request

Run = Callable[..., Future[load.Load]]


class Server(Protocol):
    """Something that speaks the protocol and serves `digits` and `frame`: ours, or a peer."""

    name: str
    binary: bool  # takes binary tensors over HTTP
    shared_memory: bool  # takes regions of system shared memory over HTTP

    @property
    def addresses(self) -> Mapping[str, str]:
        """Way in ("unix", "tcp") -> address for tests.bench.load."""

    @property
    def grpc(self) -> str:
        """Address for gRPC clients."""

    @property
    def pids(self) -> Sequence[int]:
        """All its processes."""


@dataclass
class Ours:
    """The endpoint of this repository."""

    device: Device
    name = "flotilla"
    binary = shared_memory = True

    @property
    def addresses(self) -> Mapping[str, str]:
        return {"unix": self.device.unix, "tcp": self.device.tcp}

    @property
    def grpc(self) -> str:
        return str(self.device.grpc)

    @property
    def pids(self) -> Sequence[int]:
        return [self.device.pid, *children_of(self.device.pid)]


@dataclass
class Theirs:
    """Another server."""

    peer: peers.Peer

    def __post_init__(self) -> None:
        self.name, self.binary = self.peer.name, self.peer.binary
        self.shared_memory = self.peer.system_shared_memory
        self.addresses = {"tcp": self.peer.http}
        self.grpc = self.peer.grpc

    @property
    def pids(self) -> Sequence[int]:
        return self.peer.pids


@contextlib.contextmanager
def shared_frame(address: str) -> Iterator[bytes]:
    """A frame in system shared memory, registered at this server; the request that names it."""
    key, size = f"flotilla-bench-{time.monotonic_ns()}", models.FRAME.nbytes
    path = Path("/dev/shm") / key
    path.write_bytes(models.FRAME.tobytes())
    entry = {"name": "frame", "datatype": "FP32", "shape": list(models.FRAME.shape)}
    where = {"shared_memory_region": key, "shared_memory_byte_size": size}
    document = {"inputs": [entry | {"parameters": where}], "parameters": {"binary_data_output": True}}
    client = load.Client(address)
    region = f"/v2/systemsharedmemory/region/{key}"
    try:
        told = f'{{"key":"/{key}","offset":0,"byte_size":{size}}}'.encode()
        if client.ask(load.http(f"{region}/register", told, method="POST")) != 200:
            raise SystemExit(f"{address} does not take shared memory: {client.body.decode()}")
        yield load.infer_document("frame", document)
        client.ask(load.http(f"{region}/unregister", method="POST"))
    finally:
        client.close()
        path.unlink()


def in_json(model: str, name: str, array: np.ndarray) -> bytes:
    """An inference request without binary tensors."""
    entry = {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    body = json.dumps({"inputs": [entry]}).encode()
    return load.http(f"/v2/models/{model}/infer", body, method="POST", headers={"Content-Type": "application/json"})


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
    digit = requests(server)["digits"]
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
        now.note(f"{name} {way} frame", now.ask(f"{name} frame", address, requests(server)["frame"]).microseconds(50))
        if server.shared_memory:
            with shared_frame(address) as request:
                found = now.ask(f"{name} shared frame", address, request)
                now.note(f"{name} {way} shared frame", found.microseconds(50))
    for connections in (8, 32):
        found = now.ask(f"{name} c={connections}", server.addresses["tcp"], digit, connections)
        now.note(f"{name} tcp rate {connections}", found.rate)


def requests(server: Server) -> Mapping[str, bytes]:
    """Model -> request for it, in the form that this server reads fastest."""
    return _BINARY if server.binary else _JSON


_BINARY: Final = {
    "digits": load.infer("digits", {"image": models.DIGIT}),
    "frame": load.infer("frame", {"frame": models.FRAME}),
}
_JSON: Final = {
    "digits": in_json("digits", "image", models.DIGIT),
    "frame": in_json("frame", "frame", models.FRAME),
}


def by_perf_analyzer(servers: Sequence[Server], folder: Path, seen: dict[str, list[float]]) -> None:
    """NVIDIA's own load client, over each protocol, with and without shared memory; three times."""
    client = perf_analyzer.Client(folder)
    try:
        client.install()
    except peers.Missing as missing:
        skip(str(missing))
        return
    for _ in range(3):
        for server in servers:
            for protocol, address in (("http", server.addresses["tcp"]), ("grpc", server.grpc)):
                for shared in (False, True) if server.shared_memory else ():
                    row = f"{server.name} analyzer {protocol}{' shared' if shared else ''}"
                    seen[row].append(
                        client.median("digits", address, protocol=protocol, shared_memory=shared, shape="image:1,1,8,8")
                    )


def cpu_us(pids: Sequence[int]) -> float:
    """Processor time of these processes so far."""
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0]) / 1e3
    return total


@contextlib.contextmanager
def running(
    folder: Path, files: Sequence[ModelFile], kinds: Sequence[type[peers.Peer]], home: Path
) -> Iterator[list[Server]]:
    """Ours and every peer that can be had."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(Device(folder / "ours", grpc_port=0, shared_memory="loopback"))
        for file in files:
            device.load(file)
        servers: list[Server] = [Ours(device)]
        for kind in kinds:
            peer = kind(home)
            try:
                peer.install()
                stack.enter_context(peer.serving(files))
            except peers.Missing as missing:
                skip(str(missing))
                continue
            servers.append(Theirs(peer))
        yield servers


def skip(text: str) -> None:
    print(f"skipped: {text}", file=sys.stderr, flush=True)


def rows(seen: Mapping[str, Sequence[float]], peers: Sequence[str]) -> list[Result]:
    def one(what: str, key: str, unit: str, goal: float | None = None) -> list[Result]:
        if not seen.get(f"flotilla {key}"):
            return []
        beside = {peer: median(seen[f"{peer} {key}"]) for peer in peers if seen.get(f"{peer} {key}")}
        return [Result(what, median(seen[f"flotilla {key}"]), unit, goal, beside)]

    def against(what: str, key: str, goal: float) -> list[Result]:
        """Round by round, so that what disturbs both falls out."""
        theirs = seen.get(f"Triton {key}", ())
        ratios = [ours / other for ours, other in zip(seen[f"flotilla {key}"], theirs, strict=False)]
        return [Result(what, median(ratios), "x", round(goal, 3))] if ratios else []

    return [
        *one("digits 64->10: session.run in process, p50", "session.run", "us"),
        *one("over session.run, Unix socket, c=1, p50", "unix over", "us", GOAL_UNIX_US),
        *one("over session.run, TCP, c=1, p50", "tcp over", "us", GOAL_TCP_US),
        *one("whole request, Unix socket, c=1, p99", "unix p99", "us"),
        *one("whole request, TCP, c=1, p50", "tcp p50", "us"),
        *against("  of Triton's (Python backend)", "tcp p50", 1 / 1.7),
        *one("whole request, TCP, c=1, p99", "tcp p99", "us"),
        *one("health/live, Unix socket (no worker), p50", "unix live", "us"),
        *one("health/live, TCP (no worker), p50", "tcp live", "us"),
        *one("processor time per request, Unix socket, c=1", "unix cpu", "us"),
        *one("processor time per request, TCP, c=1", "tcp cpu", "us"),
        *one("requests per second, TCP, c=8", "tcp rate 8", "1/s"),
        *one("requests per second, TCP, c=32", "tcp rate 32", "1/s"),
        *one("frame of 4.9 MB in the body, Unix socket, p50", "unix frame", "us"),
        *one("frame of 4.9 MB in the body, TCP, p50", "tcp frame", "us"),
        *one("frame of 4.9 MB in shared memory, Unix socket, p50", "unix shared frame", "us", GOAL_FRAME_US),
        *one("frame of 4.9 MB in shared memory, TCP, p50", "tcp shared frame", "us"),
        *against("  of Triton's (Python backend)", "tcp shared frame", 1 / 8),
        *one("digits by perf_analyzer: HTTP, p50", "analyzer http", "us"),
        *one("digits by perf_analyzer: HTTP and shared memory, p50", "analyzer http shared", "us"),
        *one("digits by perf_analyzer: gRPC, p50", "analyzer grpc", "us"),
        *one("digits by perf_analyzer: gRPC and shared memory, p50", "analyzer grpc shared", "us"),
    ]


def main() -> int:
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--no-peers", action="store_true", help="do not install and measure other servers")
    parser.add_argument("--peers", type=Path, default=peers.home(), help="folder where they are installed")
    asked = parser.parse_args()
    seen: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name, load.elsewhere() as run:
        folder = Path(name)
        files = [models.digits(folder), models.frame(folder)]
        with running(folder, files, () if asked.no_peers else peers.ALL, asked.peers) as servers:
            now = Round(0.5 if asked.quick else 1.5, run, seen)
            for _ in range(3 if asked.quick else 8):
                for server in servers:
                    measure(server, files[0], now)
            if not asked.no_peers:
                by_perf_analyzer(servers, asked.peers, seen)
    results = rows(seen, [server.name for server in servers if server.name != Ours.name])
    return tell("serving", results, as_json=asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
