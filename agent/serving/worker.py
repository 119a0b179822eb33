"""One loaded model version: takes requests from the front, answers in the arena, tells what it saw.

    control socket (daemon)   in: the job, then attach (with data socket and arena); out: ready or failed
    data socket (front)       in: REQUEST, NEWS of shared memory; out: REPLY, then TRACES when nobody waits

Ends when the daemon closes the control socket. A new front attaches anew. Python 3.10 syntax.

I/O: disk, network, process, clock.
"""

import contextlib
import gc
import json
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from agent.serving import (
    worker_batch,
    worker_oip,
    worker_placement,
    worker_probe,
    worker_regions,
    worker_sandbox,
    worker_scheduling,
    worker_session,
    worker_shadow,
    worker_tensors,
    worker_wait,
    worker_wire,
)
from shared import probes

_MICRO = 1000  # nanoseconds
_ONE_DESCRIPTOR = socket.CMSG_LEN(struct.calcsize("i"))
_GPU_LOST = 17  # as an exit code
_MOST_WARMED = 16  # numbers of rows
_IDLE_MS = 2  # without a request for so long, what was answered is probed


Answer = tuple[worker_wire.Reply, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]


class NotFiniteError(Exception):
    """The model answered NaN or infinity."""


def serve(control: socket.socket, job: Mapping[str, Any]) -> None:
    """Shut oneself in, load, say so, answer until told to end. Does not return."""
    priority = worker_scheduling.Priority(worker_scheduling.WORKER if job["realtime"] else 0, guarded=True)
    try:
        unconfined = _confine(job)
        session, took = _load(job, priority)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the daemon is told before this process ends
        lines = str(error).strip().splitlines() or [type(error).__name__]
        no_provider = isinstance(error, worker_session.NoProviderError)
        control.send(json.dumps({"failed": lines[0][:1000], "no_provider": no_provider}).encode())
        os._exit(1)
    scheduled = priority.stay_behind() if job.get("shadow") else priority.rise()
    if scheduled == worker_scheduling.REALTIME:
        priority.guard()
    news = {
        "ready": took,
        "provider": session.provider,
        "passed_over": session.passed_over,
        "class": scheduled,
        "unconfined": unconfined,
    }
    control.send(json.dumps(news).encode())
    gc.freeze()  # what is there now stays: collections look only at what is new
    (worker_shadow.Shadow if job.get("shadow") else Worker)(control, session, job).run()
    priority.leave()
    os._exit(0)


def _confine(job: Mapping[str, Any]) -> Sequence[str]:
    """The sandbox. `readable` of the job: compiled engines, `writable`: where they are made. What this kernel lacks."""
    return worker_sandbox.enter(
        readable=[os.path.dirname(os.path.abspath(job["path"])), *job.get("readable", ())],
        writable=job.get("writable", ()),
        accelerator=any(name != worker_session.CPU for name in job["providers"]),
    )


def _load(job: Mapping[str, Any], priority: worker_scheduling.Priority) -> tuple[worker_session.Session, float]:
    if job["gentle"]:
        priority.be_gentle()
    start = time.monotonic()
    session = worker_session.load(
        job["path"], providers=job["providers"], threads=job["threads"], options=job.get("options")
    )
    _agrees("inputs", session.inputs, job["inputs"])
    _agrees("outputs", session.outputs, job["outputs"])
    _warm_up(session, int(job.get("max_batch_rows", 1)))
    return session, time.monotonic() - start


def _agrees(side: str, specs: Sequence[Any], promised: Sequence[Mapping[str, Any]]) -> None:
    have = [(spec.name, spec.datatype) for spec in specs]
    want = [(entry["name"], entry["datatype"]) for entry in promised]
    if sorted(have) != sorted(want):
        raise ValueError(f"the model's {side} are {have}, its manifest says {want}")


def _warm_up(session: worker_session.Session, rows: int) -> None:
    """One run on zeros, so that the first client does not pay for it. Models that refuse zeros are not wrong.

    On an accelerator, which sets up each size anew, one for each number of rows that requests are joined to; none
    where it would have to guess another size: it would compile for that.
    """
    on_cpu = session.provider == worker_session.CPU
    if not on_cpu and any(size == -1 for spec in session.inputs for size in spec.shape[1:]):
        return
    try:
        for count in range(1, 2 if on_cpu else min(rows, _MOST_WARMED) + 1):
            session.run({spec.name: _zeros(spec, count) for spec in session.inputs})
    except Exception:  # noqa: BLE001 - onnxruntime's exceptions have no common root; golden inputs are the real test
        return


def _zeros(spec: worker_session.Spec, rows: int) -> np.ndarray:
    shape = [(rows if at == 0 else 1) if size == -1 else max(size, 1) for at, size in enumerate(spec.shape)]
    return np.full(shape, "" if spec.datatype == "BYTES" else 0, spec.dtype)


class Marks(NamedTuple):
    """When a request was begun, parsed and run (ns); its rows, and those of its execution (0: told elsewhere)."""

    begin: int
    parsed: int
    ran: int
    rows: int
    execution: int


class Worker:
    """Answers one request after the other, or several at once where the model's requests may be joined."""

    def __init__(self, control: socket.socket, session: worker_session.Session, job: Mapping[str, Any]) -> None:
        model, version = str(job["model"]), str(job["version"])
        self._control = control
        self._session = session
        self._name = (model, version)
        self._regions = worker_regions.Regions()
        self._codec = worker_oip.Codec(model, version, session.inputs, session.outputs, lent=self._regions.part)
        self._batching = worker_batch.of(job, session.inputs, session.outputs)
        self._data: Optional[socket.socket] = None
        self._arena: Optional[mmap.mmap] = None
        self._view = memoryview(b"")
        self._along = worker_session.projection(str(job["path"]))
        self._prober = worker_probe.Prober(on=bool(job.get("probes", True)), along=self._along)
        self._awake = bool(job.get("wakeful"))
        self._lost = False  # the GPU

    def run(self) -> None:
        """Until the control socket is closed."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        wait = worker_wait.Wait(poll, awake=self._awake)
        while True:
            for descriptor, _ in wait.events(None if self._prober.empty else _IDLE_MS) or self._idle():
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
        self._arena = mmap.mmap(descriptors[1], 0)
        os.close(descriptors[1])
        self._view = memoryview(self._arena)
        poll.register(self._data, select.POLLIN)
        return True

    def _detach(self) -> None:
        if self._data is not None:
            self._data.close()
        self._data = None
        self._prober.clear()
        self._regions.clear()
        self._view = memoryview(b"")
        self._arena = None  # unmapped when the last array on it is gone

    def _asked(self) -> bool:
        """Answer what the front sent. False when the front is gone."""
        try:
            request = self._take()
            while request is not None:
                request = self._serve(request)
            if self._prober.full:
                self._trace()
        except ConnectionError:
            return False
        return True

    def _take(self, flags: int = 0) -> Optional[worker_wire.Request]:
        """The next request; None when there is none.

        Raises:
            ConnectionError: the front is gone.
        """
        if self._data is None:
            raise ConnectionResetError("no front")
        try:
            message, extra, _, _ = self._data.recvmsg(worker_wire.REQUEST_MESSAGE, _ONE_DESCRIPTOR, flags)
        except BlockingIOError:
            return None
        if not message:
            raise ConnectionResetError("the front closed the connection")
        request = worker_wire.unpack_request(message)
        if isinstance(request, worker_wire.News):
            self._regions.hear(request, struct.unpack("i", extra[0][2])[0] if extra else -1)
            return None
        return request

    def _serve(self, request: worker_wire.Request) -> Optional[worker_wire.Request]:
        """Answer it, perhaps with others that wait. A request that was taken and must go by itself comes back."""
        if request.json_bytes == worker_wire.PROBE:
            self._echo(request)
            return None
        if self._batching is None or request.alone:
            self._send(*self._answer(request))
            return None
        asked, left = [request], None
        until = time.monotonic() + self._batching.delay_seconds
        while len(asked) < self._batching.most_rows and left is None and self._more(until):
            following = self._take(socket.MSG_DONTWAIT)
            if following is None:
                break
            if following.alone:
                left = following
            else:
                asked.append(following)
        self._answer_together(asked)
        return left

    def _echo(self, request: worker_wire.Request) -> None:
        """A probe: show that requests are read here, and answers written."""
        size = self._put(request.slot, [bytes(self._body(request))])
        if self._data is not None:
            reply = worker_wire.Reply(request.number, 200, worker_wire.OK, size, worker_wire.NO_HEADER)
            self._data.send(worker_wire.pack_reply(reply))

    def _more(self, until: float) -> bool:
        """Whether something waits now, or comes before `until`."""
        left = until - time.monotonic()
        return left <= 0 or self._data is None or bool(select.select([self._data], [], [], left)[0])

    def _send(
        self, reply: worker_wire.Reply, inputs: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray]
    ) -> None:
        if self._prober.add(reply.number, inputs, results):
            reply = reply._replace(held=1)
        if self._data is not None:
            self._data.send(worker_wire.pack_reply(reply))
        if self._lost:  # nothing that this process asks of the GPU will work again: another one takes its place
            os._exit(_GPU_LOST)

    def _idle(self) -> list[tuple[int, int]]:
        with contextlib.suppress(ConnectionError):  # the front is gone: its end of file is next
            self._trace()
        return []

    def _trace(self) -> None:
        for message in worker_wire.pack_traces(self._prober.flush()):
            if self._data is not None:
                self._data.send(message)

    def _answer(self, request: worker_wire.Request) -> Answer:
        """By itself."""
        begin = time.perf_counter_ns()
        try:
            call = self._read(request)
        except worker_tensors.BadRequestError as error:
            return self._refuse(request, 400, worker_wire.BAD_REQUEST, str(error)), {}, {}
        return self._run(request, call, begin)

    def _answer_together(self, requests: Sequence[worker_wire.Request]) -> None:
        """Those that fit together run as one; where that fails, each by itself, so that only the bad one fails."""
        begin = time.perf_counter_ns()
        good: list[tuple[worker_wire.Request, worker_oip.Call]] = []
        for request in requests:
            try:
                good.append((request, self._read(request)))
            except worker_tensors.BadRequestError as error:
                self._send(self._refuse(request, 400, worker_wire.BAD_REQUEST, str(error)), {}, {})
        if self._batching is None:
            return
        for group in self._batching.groups([call.inputs for _, call in good]):
            members = [good[index] for index in group.members]
            parsed = time.perf_counter_ns()
            parts = group.run(self._session.run) if len(members) > 1 else None
            ran = time.perf_counter_ns()
            for position, (request, call) in enumerate(members):
                if parts is None:
                    self._send(*self._run(request, call, begin))
                    continue
                execution = sum(group.rows) if position == 0 else 0
                marks = Marks(begin, parsed, ran, group.rows[position], execution)
                self._send(*self._conclude(request, call, parts[position], marks))

    def _read(self, request: worker_wire.Request) -> worker_oip.Call:
        json_bytes = None if request.json_bytes == worker_wire.NO_HEADER else request.json_bytes
        return self._codec.parse(self._body(request), json_bytes, request.user)

    def _body(self, request: worker_wire.Request) -> memoryview:
        start = request.slot * worker_wire.SLOT_BYTES + request.offset
        return self._view[start : start + request.body_bytes]

    def _run(self, request: worker_wire.Request, call: worker_oip.Call, begin: int) -> Answer:
        parsed = time.perf_counter_ns()
        try:
            results = self._session.run(call.inputs)
        except Exception as error:  # noqa: BLE001 - one request's fault must not take the worker
            text = f"onnx runtime error: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
            self._lost = self._lost or worker_placement.lost(text)
            return self._refuse(request, 500, worker_wire.INTERNAL, text, call.request_id), {}, {}
        rows = worker_batch.rows_of(call.inputs) if self._batching is not None else 1
        return self._conclude(request, call, results, Marks(begin, parsed, time.perf_counter_ns(), rows, rows))

    def _conclude(
        self, request: worker_wire.Request, call: worker_oip.Call, results: Mapping[str, np.ndarray], marks: Marks
    ) -> Answer:
        """Check what the model answered, write it into the arena."""
        try:
            _check_finite(self._name, results)
            header, tail = self._codec.reply(call, results)
        except NotFiniteError as error:
            return self._refuse(request, 500, worker_wire.NOT_FINITE, str(error), call.request_id), {}, {}
        except worker_tensors.BadRequestError as error:
            return self._refuse(request, 400, worker_wire.BAD_REQUEST, str(error), call.request_id), {}, {}
        except Exception as error:  # noqa: BLE001 - one request's fault must not take the worker
            text = f"the answer cannot be written: {(str(error).splitlines() or [type(error).__name__])[0]}"
            return self._refuse(request, 500, worker_wire.INTERNAL, text, call.request_id), {}, {}
        size = self._put(request.slot, [header, *tail])
        if size < 0:
            text = f"the reply is larger than {worker_wire.REPLY_BYTES} bytes"
            return self._refuse(request, 500, worker_wire.INTERNAL, text, call.request_id), {}, {}
        reply = worker_wire.Reply(
            request.number,
            200,
            worker_wire.OK,
            size,
            len(header) if tail else worker_wire.NO_HEADER,
            (marks.parsed - marks.begin) // _MICRO,
            (marks.ran - marks.parsed) // _MICRO,
            (time.perf_counter_ns() - marks.ran) // _MICRO,
            marks.rows,
            marks.execution,
            0,
            call.request_id,
            _classes(probes.answers(results, self._along)) if call.request_id else (),
        )
        return reply, self._prober.own(call.inputs) if call.lent else call.inputs, results

    def _refuse(
        self, request: worker_wire.Request, status: int, kind: int, text: str, call_id: str = ""
    ) -> worker_wire.Reply:
        size = self._put(request.slot, [json.dumps({"error": text}).encode()])
        return worker_wire.Reply(request.number, status, kind, size, worker_wire.NO_HEADER, request_id=call_id)

    def _put(self, slot: int, parts: Sequence[Any]) -> int:
        """Write to the reply half of `slot`. Bytes written; -1 when they do not fit."""
        if sum(map(len, parts)) > worker_wire.REPLY_BYTES:
            return -1
        begin = at = slot * worker_wire.SLOT_BYTES + worker_wire.REQUEST_BYTES
        for part in parts:
            self._view[at : at + len(part)] = part
            at += len(part)
        return at - begin


def _check_finite(name: tuple[str, str], results: Mapping[str, np.ndarray]) -> None:
    for output, array in results.items():
        if array.dtype.kind == "f" and not np.logical_and.reduce(np.isfinite(array), axis=None):
            raise NotFiniteError(
                "model '{}' version '{}' answered a value that is not finite in output '{}'".format(*name, output)
            )


def _classes(results: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    scores = probes.class_scores(results)
    return () if scores is None else tuple(scores[: worker_wire.MAX_ROWS].argmax(axis=1).tolist())
