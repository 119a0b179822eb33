"""The process of a candidate in the shadow: looks at what the version that serves answered, and answers, too.

    control socket (daemon)   in: attach (with data socket and arena)
    data socket (front)       in: LOOK; out: SEEN

It may only read the arena, its answers go nowhere but to the comparison, and it has the processor when nobody else
wants it. One request may use so much processor time; then the kernel ends the process (SIGPROF), however long that
took by the clock. Ends when the daemon closes the control socket. Python 3.10 syntax.

I/O: disk, network, process, clock.
"""

import contextlib
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from agent.serving import worker_batch, worker_compare, worker_oip, worker_session, worker_shadow_wire, worker_wire
from agent.serving.worker_shadow_wire import Look, Seen

_NANO_TO_MICRO = 1000


class Shadow:
    """Compares one request after the other."""

    def __init__(self, control: socket.socket, session: worker_session.Session, job: Mapping[str, Any]) -> None:
        terms = job["shadow"]
        self._control = control
        self._session = session
        self._codec = worker_oip.Codec(str(job["model"]), str(job["version"]), session.inputs, session.outputs)
        self._tolerance = worker_compare.Tolerance(float(terms["absolute"]), float(terms["relative"]))
        self._most_seconds = float(terms["most_seconds"])
        # Only there is the processor's time that of the inference; it does not grow while others are served.
        self._by_processor = session.provider == worker_session.CPU and int(job["threads"]) == 1
        self._data: Optional[socket.socket] = None
        self._view = memoryview(b"")

    def run(self) -> None:
        """Until the control socket is closed."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._control.fileno():
                    if not self._told(poll):
                        return
                elif self._data is not None and descriptor == self._data.fileno() and not self._asked():
                    poll.unregister(self._data)
                    self._detach()

    def _told(self, poll: "select.poll") -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, worker_wire.MAX_MESSAGE, 2)
        if not message:
            return False
        if self._data is not None:
            poll.unregister(self._data)
            self._detach()
        self._data = socket.socket(fileno=descriptors[0])
        self._view = memoryview(mmap.mmap(descriptors[1], 0, access=mmap.ACCESS_READ))
        os.close(descriptors[1])
        poll.register(self._data, select.POLLIN)
        return True

    def _detach(self) -> None:
        if self._data is not None:
            self._data.close()
        self._data = None
        self._view = memoryview(b"")  # unmapped when the last array on it is gone

    def _asked(self) -> bool:
        """Look at what the front sent. False when the front is gone."""
        if self._data is None:
            return False
        try:
            message = self._data.recv(worker_shadow_wire.MESSAGE)
            if message:
                self._look(worker_shadow_wire.unpack_look(message))
        except ConnectionError:
            return False
        return bool(message)

    def _look(self, look: Look) -> None:
        start = look.slot * worker_wire.SLOT_BYTES
        answer = start + worker_wire.REQUEST_BYTES
        request = bytes(self._view[start + look.offset : start + look.offset + look.body_bytes])
        served = bytes(self._view[answer : answer + look.reply_bytes])
        if time.monotonic() >= look.until:
            self._send(Seen(worker_shadow_wire.MISSED, look.number))
            return
        self._send(Seen(worker_shadow_wire.TAKEN, look.number))
        with self._limited():
            seen = self._compared(look, request, served)
        self._send(seen)

    def _send(self, seen: Seen) -> None:
        if self._data is not None:
            self._data.send(worker_shadow_wire.pack_seen(seen))

    @contextlib.contextmanager
    def _limited(self) -> Any:
        signal.setitimer(signal.ITIMER_PROF, self._most_seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _compared(self, look: Look, request: bytes, served: bytes) -> Seen:
        try:
            call = self._codec.parse(memoryview(request), _json_bytes(look.json_bytes))
            results, took = self._run(call.inputs)
        except Exception:  # noqa: BLE001 - onnxruntime's exceptions have no common root; the client got an answer
            return Seen(worker_shadow_wire.FAILED, look.number)
        if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in results.values()):
            return Seen(worker_shadow_wire.FAILED, look.number)
        found = worker_compare.Found(0, 0, 0.0)
        with contextlib.suppress(ValueError, KeyError, IndexError):  # an answer in a form that cannot be read back
            before = worker_compare.read(served, _json_bytes(look.reply_json_bytes), self._session.outputs)
            found = worker_compare.compare(before, results, self._tolerance) or found
        return Seen(worker_shadow_wire.COMPARED, look.number, found.samples, found.agreed, took, found.difference)

    def _run(self, inputs: worker_batch.Arrays) -> "tuple[Mapping[str, np.ndarray], int]":
        clock = time.thread_time_ns if self._by_processor else time.perf_counter_ns
        began = clock()
        results = self._session.run(inputs)
        return results, max(1, (clock() - began) // _NANO_TO_MICRO)


def _json_bytes(size: int) -> Optional[int]:
    return None if size == worker_wire.NO_HEADER else size
