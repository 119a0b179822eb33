"""Messages between the front and a candidate in the shadow, one SEQPACKET datagram each.

    front -> candidate   LOOK   number; where request and answer lie in the arena, and until when they lie there
    candidate -> front   SEEN   number, what became of it; with the comparison where there is one

A LOOK is a lease: the front gives the place away when the candidate says TAKEN, or when the time is over. The
candidate copies first and looks at the clock afterwards, so that it never works on bytes of another request. Both
read the same clock (time.monotonic). Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

import struct
from typing import NamedTuple

TAKEN = 1  # copied: the place is free
MISSED = 2  # the time was over before it was copied
COMPARED = 3
FAILED = 4  # the candidate could not answer
MESSAGE = 256  # longer than any

_LOOK = struct.Struct("<QIIQIQId")
_SEEN = struct.Struct("<BQIIQd")


class Look(NamedTuple):
    number: int
    slot: int
    offset: int  # of the request in the slot
    body_bytes: int
    json_bytes: int  # worker_wire.NO_HEADER: all of it
    reply_bytes: int
    reply_json_bytes: int
    until: float


class Seen(NamedTuple):
    kind: int
    number: int
    samples: int = 0
    agreed: int = 0
    infer_us: int = 0
    difference: float = 0.0


def pack_look(look: Look) -> bytes:
    return _LOOK.pack(*look)


def unpack_look(data: bytes) -> Look:
    return Look._make(_LOOK.unpack(data))


def pack_seen(seen: Seen) -> bytes:
    return _SEEN.pack(*seen)


def unpack_seen(data: bytes) -> Seen:
    return Seen._make(_SEEN.unpack(data))
