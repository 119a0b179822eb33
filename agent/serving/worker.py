"""One loaded model version: takes requests from the front, answers in the arena, tells what it saw.

    control socket (daemon)   in: the job, then attach (with data socket and arena); out: ready or failed
    data socket (front)       in: REQUEST; out: REPLY, then TRACE when nobody waits

Ends when the daemon closes the control socket. A new front attaches anew. Python 3.10 syntax.

I/O: disk, network, process, clock.
"""

import contextlib
import json
import mmap
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.serving import worker_oip, worker_probe, worker_session, worker_wire

_MICRO = 1000  # nanoseconds
_IDLE_MS = 2  # without a request for so long, what was answered is probed


class NotFiniteError(Exception):
    """The model answered NaN or infinity."""


def serve(control: socket.socket, job: Mapping[str, Any]) -> None:
    """Load, say so, answer until told to end. Does not return."""
    try:
        session, took = _load(job)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the daemon is told before this process ends
        lines = str(error).strip().splitlines() or [type(error).__name__]
        control.send(json.dumps({"failed": lines[0][:1000]}).encode())
        os._exit(1)
    control.send(json.dumps({"ready": took, "provider": session.provider}).encode())
    Worker(control, session, str(job["model"]), str(job["version"])).run()
    os._exit(0)


def _load(job: Mapping[str, Any]) -> tuple[worker_session.Session, float]:
    gentle = bool(job["gentle"]) and _may_rise()
    if gentle:
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    start = time.monotonic()
    session = worker_session.load(job["path"], providers=job["providers"], threads=job["threads"])
    _agrees("inputs", session.inputs, job["inputs"])
    _agrees("outputs", session.outputs, job["outputs"])
    _warm_up(session)
    if gentle:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    return session, time.monotonic() - start


def _may_rise() -> bool:
    """Whether this process may raise its priority again after lowering it."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 1)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        return False
    return True


def _agrees(side: str, specs: Sequence[Any], promised: Sequence[Mapping[str, Any]]) -> None:
    have = [(spec.name, spec.datatype) for spec in specs]
    want = [(entry["name"], entry["datatype"]) for entry in promised]
    if sorted(have) != sorted(want):
        raise ValueError(f"the model's {side} are {have}, its manifest says {want}")


def _warm_up(session: worker_session.Session) -> None:
    """One run on zeros, so that the first client does not pay for it. Models that refuse zeros are not wrong."""
    try:
        session.run(
            {
                spec.name: np.full(
                    [max(size, 1) for size in spec.shape], "" if spec.datatype == "BYTES" else 0, spec.dtype
                )
                for spec in session.inputs
            }
        )
    except Exception:  # noqa: BLE001 - onnxruntime's exceptions have no common root; golden inputs are the real test
        return


class Worker:
    """Answers one request after the other."""

    def __init__(self, control: socket.socket, session: worker_session.Session, model: str, version: str) -> None:
        self._control = control
        self._session = session
        self._name = (model, version)
        self._codec = worker_oip.Codec(model, version, session.inputs, session.outputs)
        self._data: socket.socket | None = None
        self._arena: mmap.mmap | None = None
        self._view = memoryview(b"")
        self._prober = worker_probe.Prober()

    def run(self) -> None:
        """Until the control socket is closed."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(None if self._prober.empty else _IDLE_MS) or self._idle():
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
        self._view = memoryview(b"")
        self._arena = None  # unmapped when the last array on it is gone

    def _asked(self) -> bool:
        """Answer one request. False when the front is gone."""
        if self._data is None:
            return False
        try:
            message = self._data.recv(worker_wire.REQUEST_MESSAGE)
            if not message:
                return False
            request = worker_wire.unpack_request(message)
            reply, inputs, results = self._answer(request)
            self._data.send(worker_wire.pack_reply(reply))
            self._prober.add(request.number, inputs, results)
            if self._prober.full:
                self._trace()
        except ConnectionError:
            return False
        return True

    def _idle(self) -> list[tuple[int, int]]:
        with contextlib.suppress(ConnectionError):  # the front is gone: its end of file is next
            self._trace()
        return []

    def _trace(self) -> None:
        for number, features in self._prober.flush():
            if self._data is not None:
                self._data.send(worker_wire.pack_trace(number, features))

    def _answer(
        self, request: worker_wire.Request
    ) -> tuple[worker_wire.Reply, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
        begin = time.perf_counter_ns()
        start = request.slot * worker_wire.SLOT_BYTES + request.offset
        body = self._view[start : start + request.body_bytes]
        call_id = ""
        try:
            json_bytes = None if request.json_bytes == worker_wire.NO_HEADER else request.json_bytes
            call = self._codec.parse(body, json_bytes)
            call_id = call.request_id
            parsed = time.perf_counter_ns()
            results = self._session.run(call.inputs)
            ran = time.perf_counter_ns()
            _check_finite(self._name, results)
            header, tail = self._codec.reply(call, results)
        except worker_oip.BadRequestError as error:
            return self._refuse(request, 400, worker_wire.BAD_REQUEST, str(error)), {}, {}
        except NotFiniteError as error:
            return self._refuse(request, 500, worker_wire.NOT_FINITE, str(error), call_id), {}, {}
        except Exception as error:  # noqa: BLE001 - one request's fault must not take the worker
            text = f"onnx runtime error: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
            return self._refuse(request, 500, worker_wire.INTERNAL, text, call_id), {}, {}
        size = self._put(request.slot, [header, *tail])
        if size < 0:
            text = f"the reply is larger than {worker_wire.REPLY_BYTES} bytes"
            return self._refuse(request, 500, worker_wire.INTERNAL, text, call_id), {}, {}
        done = time.perf_counter_ns()
        reply = worker_wire.Reply(
            number=request.number,
            status=200,
            error=worker_wire.OK,
            body_bytes=size,
            json_bytes=len(header) if tail else worker_wire.NO_HEADER,
            input_us=(parsed - begin) // _MICRO,
            infer_us=(ran - parsed) // _MICRO,
            output_us=(done - ran) // _MICRO,
            request_id=call_id,
            classes=_classes(results) if call_id else (),
        )
        return reply, call.inputs, results

    def _refuse(
        self, request: worker_wire.Request, status: int, kind: int, text: str, call_id: str = ""
    ) -> worker_wire.Reply:
        size = self._put(request.slot, [json.dumps({"error": text}).encode()])
        return worker_wire.Reply(request.number, status, kind, size, worker_wire.NO_HEADER, request_id=call_id)

    def _put(self, slot: int, parts: list[bytes]) -> int:
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
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFiniteError(
                "model '{}' version '{}' answered a value that is not finite in output '{}'".format(*name, output)
            )


def _classes(results: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    for array in results.values():
        if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] > 1:
            return tuple(array[: worker_wire.MAX_ROWS].argmax(axis=1).tolist())
    return ()
