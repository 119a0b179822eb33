"""Load on any server of the Open Inference Protocol: raw sockets, requests built beforehand, one thread per call.

    request = infer("digits", {"image": images})            bytes of a whole request, binary tensors
    closed(address, [request], connections=8, seconds=5)    each connection asks again once it has its answer
    paced(address, [request], rate=200, seconds=5)          at fixed times, whether or not answers came: `Load.starts`
                                                            are the times planned, so waiting is part of a latency

An address is "host:port" or the path of a Unix socket. `elsewhere` runs one of them in a process of its own, so
that it shares no interpreter with what it measures.
"""

import contextlib
import json
import multiprocessing
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

NO_ANSWER: Final = 0  # as a status: refused, reset or timed out
_TIMEOUT_SECONDS: Final = 30.0
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_RECEIVE_BYTES: Final = 256 * 1024
_DATATYPES: Final = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int8": "INT8",
    "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What was seen, one entry per request in the order of their ends."""

    starts: np.ndarray  # [n] float64, seconds of time.monotonic
    latencies: np.ndarray  # [n] float64, seconds
    statuses: np.ndarray  # [n] int64; NO_ANSWER where there was none
    seconds: float

    @property
    def rate(self) -> float:
        """Right answers per second."""
        return float(np.count_nonzero(self.statuses == 200) / self.seconds)

    @property
    def failed(self) -> int:
        return int(np.count_nonzero(self.statuses != 200))

    def microseconds(self, percent: float) -> float:
        """This percentile of the latencies of right answers."""
        return percentile(self.latencies[self.statuses == 200], percent) * 1e6

    def longest_gap(self) -> float:
        """Longest time in seconds without a right answer."""
        good = self.statuses == 200
        ends = np.sort(self.starts[good] + self.latencies[good])
        return float(np.diff(ends).max()) if len(ends) > 1 else float("inf")


def percentile(values: np.ndarray, percent: float) -> float:
    """NaN when there is none."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def http(path: str, body: bytes = b"", *, method: str = "GET", headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: device", f"Content-Length: {len(body)}"]
    lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
    return "\r\n".join([*lines, "", ""]).encode() + body


def infer(
    model: str,
    inputs: Mapping[str, np.ndarray],
    *,
    version: str | None = None,
    request_id: str = "",
    binary_output: bool = True,
) -> bytes:
    """A whole inference request with binary tensors."""
    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "datatype": _DATATYPES[array.dtype.name],
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    document: dict[str, Any] = {"inputs": entries, "parameters": {"binary_data_output": binary_output}}
    if request_id:
        document["id"] = request_id
    return infer_document(model, document, [array.tobytes() for array in inputs.values()], version=version)


def infer_document(
    model: str, document: Mapping[str, Any], tail: Sequence[bytes] = (), *, version: str | None = None
) -> bytes:
    """A whole inference request from its JSON part and binary parts, for instance one that names shared memory."""
    head = json.dumps(document, separators=(",", ":")).encode()
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    extra = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return http(path, b"".join([head, *tail]), method="POST", headers=extra)


class Client:
    """One connection. `ask` waits for the answer; `send` and `ready` are for loops over many connections."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._received = bytearray(_RECEIVE_BYTES)
        self._filled = 0
        self._body = 0  # where it begins in `_received`; 0: the head is not yet there
        self._ends: int | None = None  # where the answer ends, once that is known
        self._chunked = False
        self.status = NO_ANSWER
        self.end = connect(address)

    def ask(self, request: bytes) -> int:
        """Status of the answer, NO_ANSWER when the connection broke; then it is made anew."""
        try:
            self.send(request)
            while not self.ready():
                pass
        except OSError:
            self.reconnect()
            return NO_ANSWER
        return self.status

    def send(self, request: bytes) -> None:
        self._begin()
        self.end.sendall(request)

    def ready(self) -> bool:
        """Receive once; whether the answer is complete.

        Raises:
            OSError: the server closed or is silent.
        """
        if self._filled == len(self._received):
            self._received += bytes(len(self._received))
        with memoryview(self._received) as view:
            count = self.end.recv_into(view[self._filled :])
        if count == 0:
            raise ConnectionResetError("the server closed the connection")
        self._filled += count
        if self._body == 0:
            self._read_head()
        if self._chunked and self._received.endswith(_LAST_CHUNK, 0, self._filled):
            self._ends = self._filled
        return self._ends is not None and self._filled >= self._ends

    @property
    def body(self) -> bytes:
        """Of the last answer; with the sizes of its chunks, where it came in chunks."""
        return bytes(self._received[self._body : self._ends])

    @property
    def head(self) -> bytes:
        return bytes(self._received[: self._body])

    def reconnect(self) -> None:
        """A new connection; waits a little when there is none to be had."""
        self.end.close()
        self._begin()
        try:
            self.end = connect(self._address)
        except OSError:
            time.sleep(0.001)
            self.end = socket.socket()  # not connected: the next request fails at once

    def close(self) -> None:
        self.end.close()

    def _begin(self) -> None:
        self._filled, self._body, self._ends, self._chunked = 0, 0, None, False

    def _read_head(self) -> None:
        stop = self._received.find(b"\r\n\r\n", 0, self._filled)
        if stop < 0:
            return
        self.status = int(self._received[9:12])
        head = bytes(self._received[:stop]).lower()
        at = head.find(b"\r\ncontent-length:")
        self._body = stop + 4
        self._chunked = at < 0
        if self._chunked:
            if b"chunked" not in head:
                raise ConnectionError("an answer without a length is not understood here")
            return
        self._ends = self._body + int(head[at + 17 :].partition(b"\r\n")[0])


def connect(address: str) -> socket.socket:
    """A blocking socket with a time-out."""
    if address.startswith("/"):
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(_TIMEOUT_SECONDS)
        end.connect(address)
        return end
    host, _, port = address.rpartition(":")
    end = socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


class _Log:
    """Collects what becomes a Load."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, int]] = []
        self._began = time.monotonic()

    def add(self, start: float, status: int) -> None:
        self._rows.append((start, time.monotonic() - start, status))

    def load(self) -> Load:
        table = np.array(self._rows, dtype=np.float64).reshape(-1, 3)
        seconds = time.monotonic() - self._began
        return Load(table[:, 0], table[:, 1], table[:, 2].astype(np.int64), seconds)


def closed(address: str, requests: Sequence[bytes], *, connections: int = 1, seconds: float) -> Load:
    """Each of the connections asks one of `requests` after the other for so long."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(address))) for _ in range(connections)]
        return _alone(clients[0], requests, seconds) if connections == 1 else _together(clients, requests, seconds)


def _alone(client: Client, requests: Sequence[bytes], seconds: float) -> Load:
    log, number = _Log(), 0
    deadline = time.monotonic() + seconds
    while (start := time.monotonic()) < deadline:
        log.add(start, client.ask(requests[number % len(requests)]))
        number += 1
    return log.load()


def _together(clients: Sequence[Client], requests: Sequence[bytes], seconds: float) -> Load:
    lot, log = _Lot(clients), _Log()
    turn = _turns(requests)
    deadline = time.monotonic() + seconds
    while (now := time.monotonic()) < deadline or lot.busy:
        while now < deadline and (client := lot.free()) is not None:
            lot.ask(client, next(turn), time.monotonic(), log)
        lot.wait(_TIMEOUT_SECONDS, log)
    return log.load()


def paced(
    address: str,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 64,
    flag: Path | None = None,
) -> Load:
    """`rate` requests per second at even times over at most so many connections; late ones are not left out.

    It ends after `seconds`, or when the file `flag` is no longer there.
    """
    with contextlib.ExitStack() as stack:
        lot = _Lot([stack.enter_context(contextlib.closing(Client(address))) for _ in range(connections)])
        log, turn = _Log(), _turns(requests)
        began = time.monotonic()
        due = deque(began + number / rate for number in range(int(rate * seconds)))
        while due or lot.busy:
            now = time.monotonic()
            if flag is not None and due and not flag.exists():
                due.clear()
                continue
            while due and due[0] <= now and (client := lot.free()) is not None:
                lot.ask(client, next(turn), due.popleft(), log)
            pause = max(0.0, due[0] - time.monotonic()) if due and lot.idle else _TIMEOUT_SECONDS
            lot.wait(pause, log)
        return log.load()


def _turns(requests: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


class _Lot:
    """Connections, which of them have a request under way, and since when."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._idle = list(clients)
        self._busy: dict[int, tuple[Client, float]] = {}
        self._poll = select.epoll()
        for client in clients:
            self._poll.register(client.end, select.EPOLLIN)

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    @property
    def idle(self) -> bool:
        return bool(self._idle)

    def free(self) -> Client | None:
        return self._idle.pop() if self._idle else None

    def ask(self, client: Client, request: bytes, start: float, log: _Log) -> None:
        self._busy[client.end.fileno()] = client, start
        try:
            client.send(request)
        except OSError:
            self._renew(client, start, log)

    def wait(self, seconds: float, log: _Log) -> None:
        """Until an answer, or so long. A server that is silent for _TIMEOUT_SECONDS loses what it has."""
        events = self._poll.poll(seconds)
        for descriptor, _ in events:
            client, start = self._busy.get(descriptor, (None, 0.0))
            if client is None:
                self._poll.modify(descriptor, 0)  # an idle connection that the server closed: its next use tells
                continue
            try:
                if not client.ready():
                    continue
            except OSError:
                self._renew(client, start, log)
                continue
            del self._busy[descriptor]
            log.add(start, client.status)
            self._idle.append(client)
        if not events and seconds >= _TIMEOUT_SECONDS:
            for client, start in list(self._busy.values()):
                self._renew(client, start, log)

    def _renew(self, client: Client, start: float, log: _Log) -> None:
        del self._busy[client.end.fileno()]
        log.add(start, NO_ANSWER)
        client.reconnect()
        self._poll.register(client.end, select.EPOLLIN)
        self._idle.append(client)


@contextlib.contextmanager
def elsewhere() -> Iterator[Callable[..., Future[Load]]]:
    """`run(closed, address, ...)` in a process of its own, as a future.

    The process is started before the first call, so that its start is not in the way of what is measured.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(percentile, np.zeros(1), 50).result()
        yield pool.submit
