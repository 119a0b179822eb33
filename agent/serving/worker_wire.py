"""Messages between front and worker, one SEQPACKET datagram each. Bodies lie in the shared arena.

    front -> worker   REQUEST  number, slot, where the body begins in it, its bytes, bytes of its JSON part, the user
    front -> worker   NEWS     a client's memory came (with a descriptor) or went
    worker -> front   REPLY    number, status, kind of error, bytes of reply and of its JSON part, times, id, classes
    worker -> front   TRACES   several numbers, each with feature values: later, when no client waits

Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

MIB = 1024 * 1024
REQUEST_BYTES = 64 * MIB  # for a request
ALIGNMENT = 64
MAX_BODY = REQUEST_BYTES - ALIGNMENT
REPLY_BYTES = 64 * MIB
SLOT_BYTES = REQUEST_BYTES + REPLY_BYTES  # sparse: only touched pages take memory
NO_HEADER = 0xFFFFFFFF  # the whole body is JSON: no Inference-Header-Content-Length
PROBE = 0xFFFFFFFE  # no request of a client: write the body back, the model does not run
MAX_MESSAGE = 64 * 1024
MAX_ROWS = 256  # of one request in a trace; more are thinned out evenly
MAX_ID = 256
REQUEST_MESSAGE = 512  # room for a REQUEST or NEWS
NOBODY = 0xFFFFFFFF  # a client of whom is not known which user it is: it has no shared memory

OK, BAD_REQUEST, NOT_FINITE, INTERNAL = 0, 1, 2, 6  # positions in observations.ERRORS

_NEWS = bytes(8)  # how NEWS begin; numbers of requests begin at 1
_REQUEST = struct.Struct("<QIIQIBI")
_REPLY = struct.Struct("<BQHBQIIIIIIBHH")
_TRACE = struct.Struct("<QI")
_FEATURES = struct.Struct("<HH")
_KIND_REPLY = 1
_KIND_TRACES = 2
_BATCH_BYTES = 48 * 1024  # of traces in one message, unless a single one is larger


class Request(NamedTuple):
    number: int
    slot: int
    offset: int  # of the body in the slot, so that what follows its JSON part is aligned
    body_bytes: int
    json_bytes: int  # NO_HEADER: all of it; PROBE
    alone: int = 0  # 1: not to be joined with others, it may be what kills workers
    user: int = NOBODY  # who asks: the shared memory of others is not his


class News(NamedTuple):
    """Memory that a client shares, which came or went."""

    user: int
    name: str
    offset: int = 0
    size: int = 0
    writable: bool = False
    gone: bool = False


class Reply(NamedTuple):
    number: int
    status: int
    error: int
    body_bytes: int  # at the start of the slot's reply half
    json_bytes: int  # NO_HEADER: no binary tensors follow
    input_us: int = 0
    infer_us: int = 0
    output_us: int = 0
    rows: int = 1  # of this request, where the model's requests are joined
    execution: int = 1  # rows that ran together; 0: told by another reply of that execution
    held: int = 0  # 1: the worker still looks at the request in the arena; its trace gives it back
    request_id: str = ""
    classes: tuple[int, ...] = ()  # arg max of each row, for feedback


class Trace(NamedTuple):
    number: int
    features: bytes


def pack_request(request: Request) -> bytes:
    return _REQUEST.pack(*request)


def pack_news(news: News) -> bytes:
    return _NEWS + json.dumps(news, ensure_ascii=False).encode()


def unpack_request(data: bytes) -> "Request | News":
    """What the front sent to a worker."""
    if data.startswith(_NEWS):
        return News(*json.loads(data[len(_NEWS) :]))
    return Request._make(_REQUEST.unpack(data))


def pack_reply(reply: Reply) -> bytes:
    *numbers, request_id, classes = reply
    name = request_id.encode("utf-8", "replace") if request_id else b""
    name = name if len(name) <= MAX_ID else b""
    classes = classes[:MAX_ROWS]
    try:
        head = _REPLY.pack(_KIND_REPLY, *numbers, len(name), len(classes))
    except struct.error:  # a time that does not fit: who waited so long does not mind the figure
        numbers[5:8] = [min(max(value, 0), 0xFFFFFFFF) for value in numbers[5:8]]
        head = _REPLY.pack(_KIND_REPLY, *numbers, len(name), len(classes))
    return head + name + struct.pack(f"<{len(classes)}i", *classes) if name or classes else head


def pack_traces(traces: Iterable[Trace]) -> Iterator[bytes]:
    """Messages that carry all of them."""
    parts: list[bytes] = [bytes([_KIND_TRACES])]
    size = 1
    for number, features in traces:
        size += _TRACE.size + len(features)
        if size > _BATCH_BYTES and len(parts) > 1:
            yield b"".join(parts)
            parts = parts[:1]
            size = 1 + _TRACE.size + len(features)
        parts += (_TRACE.pack(number, len(features)), features)
    if len(parts) > 1:
        yield b"".join(parts)


def unpack_answer(data: bytes) -> "Reply | list[Trace]":
    """What a worker sent to the front."""
    if data[0] == _KIND_TRACES:
        return list(_traces(data))
    fields = _REPLY.unpack_from(data)
    if len(data) == _REPLY.size:
        return Reply._make((*fields[1:-2], "", ()))
    at = _REPLY.size + fields[-2]
    name = data[_REPLY.size : at].decode("utf-8", "replace")
    return Reply._make((*fields[1:-2], name, struct.unpack_from(f"<{fields[-1]}i", data, at)))


def _traces(data: bytes) -> Iterator[Trace]:
    at = 1
    while at < len(data):
        number, size = _TRACE.unpack_from(data, at)
        at += _TRACE.size
        yield Trace(number, data[at : at + size])
        at += size


def pack_features_head(names: Sequence[str], rows: int) -> bytes:
    """What goes before the values, which are float64: all rows of the first feature, then of the second, and so on."""
    text = "\n".join(names).encode()
    return _FEATURES.pack(len(text), rows) + text


def unpack_features(data: bytes) -> dict[str, tuple[float, ...]]:
    if not data:
        return {}
    length, rows = _FEATURES.unpack_from(data)
    names = data[_FEATURES.size : _FEATURES.size + length].decode().split("\n")
    values = struct.unpack_from(f"<{len(names) * rows}d", data, _FEATURES.size + length)
    return {name: values[at * rows : (at + 1) * rows] for at, name in enumerate(names)}
