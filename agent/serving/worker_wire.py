"""Messages between front and worker, one SEQPACKET datagram each. Bodies lie in the shared arena.

    front -> worker   REQUEST  number, slot, where the body begins in it, its bytes, bytes of its JSON part
    worker -> front   REPLY    number, status, kind of error, bytes of reply and of its JSON part, times, id, classes
    worker -> front   TRACE    number and feature values, after the reply: the client does not wait for them

Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

MIB = 1024 * 1024
REQUEST_BYTES = 64 * MIB  # for a request
ALIGNMENT = 64
MAX_BODY = REQUEST_BYTES - ALIGNMENT
REPLY_BYTES = 64 * MIB
SLOT_BYTES = REQUEST_BYTES + REPLY_BYTES  # sparse: only touched pages take memory
NO_HEADER = 0xFFFFFFFF  # the whole body is JSON: no Inference-Header-Content-Length
MAX_MESSAGE = 64 * 1024
REQUEST_MESSAGE = 256  # room for a REQUEST
MAX_ROWS = 256  # of one request in a trace; more are thinned out evenly
MAX_ID = 256

OK, BAD_REQUEST, NOT_FINITE, INTERNAL = 0, 1, 2, 6  # positions in observations.ERRORS

_REQUEST = struct.Struct("<QIIQI")
_REPLY = struct.Struct("<BQHBQIIIIHH")
_TRACE = struct.Struct("<BQ")
_KIND_REPLY = 1
_KIND_TRACE = 2


class Request(NamedTuple):
    number: int
    slot: int
    offset: int  # of the body in the slot, so that what follows its JSON part is aligned
    body_bytes: int
    json_bytes: int  # NO_HEADER: all of it


class Reply(NamedTuple):
    number: int
    status: int
    error: int
    body_bytes: int  # at the start of the slot's reply half
    json_bytes: int  # NO_HEADER: no binary tensors follow
    input_us: int = 0
    infer_us: int = 0
    output_us: int = 0
    request_id: str = ""
    classes: tuple[int, ...] = ()  # arg max of each row, for feedback


class Trace(NamedTuple):
    number: int
    features: bytes


def pack_request(request: Request) -> bytes:
    return _REQUEST.pack(request.number, request.slot, request.offset, request.body_bytes, request.json_bytes)


def unpack_request(data: bytes) -> Request:
    return Request(*_REQUEST.unpack(data))


def pack_reply(reply: Reply) -> bytes:
    name = reply.request_id.encode("utf-8", "replace")
    name = name if len(name) <= MAX_ID else b""
    classes = reply.classes[:MAX_ROWS]
    head = _REPLY.pack(
        _KIND_REPLY, reply.number, reply.status, reply.error, reply.body_bytes, reply.json_bytes,
        _clip(reply.input_us), _clip(reply.infer_us), _clip(reply.output_us), len(name), len(classes),
    )  # fmt: skip
    return head + name + struct.pack(f"<{len(classes)}i", *classes)


def pack_trace(number: int, features: bytes) -> bytes:
    return _TRACE.pack(_KIND_TRACE, number) + features


def unpack_answer(data: bytes) -> Reply | Trace:
    """What a worker sent to the front."""
    if data[0] == _KIND_TRACE:
        return Trace(_TRACE.unpack_from(data)[1], data[_TRACE.size :])
    fields = _REPLY.unpack_from(data)
    at = _REPLY.size
    name = data[at : at + fields[9]].decode("utf-8", "replace")
    classes = struct.unpack_from(f"<{fields[10]}i", data, at + fields[9])
    number, status, error, body, header, read, infer, write = fields[1:9]
    return Reply(number, status, error, body, header, read, infer, write, name, classes)


def pack_features(features: Mapping[str, Any]) -> bytes:
    """Names and float64 values; everything that has `tobytes` is taken as it is."""
    parts: list[bytes] = []
    for name, values in features.items():
        raw = name.encode()
        parts.append(struct.pack("<BH", len(raw), len(values)) + raw)
        parts.append(values.tobytes() if hasattr(values, "tobytes") else struct.pack(f"<{len(values)}d", *values))
    return b"".join(parts)


def unpack_features(data: bytes) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    at = 0
    while at < len(data):
        length, rows = struct.unpack_from("<BH", data, at)
        at += 3
        name = data[at : at + length].decode()
        at += length
        found[name] = struct.unpack_from(f"<{rows}d", data, at)
        at += 8 * rows
    return found


def _clip(microseconds: int) -> int:
    return min(max(microseconds, 0), 0xFFFFFFFF)
