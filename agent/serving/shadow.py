"""Candidates in the shadow, as the front sees them: a sample of what was answered is lent to each, for a moment.

    answered -> sampled? -> room for it? -> LOOK, the place in the arena stays -> TAKEN or too late: the place is free
                                                -> COMPARED or FAILED: counted, told to the daemon

The client has its answer before anything here happens. Nothing waits: what does not fit is dropped and counted.

I/O: network, clock, chance.
"""

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agent.serving import worker_shadow_wire, worker_wire
from agent.serving.dispatch import Key
from agent.serving.pending import Pending
from agent.serving.worker_shadow_wire import Look, Seen
from shared.sketches import latency_bin

if TYPE_CHECKING:
    from agent.serving.front import Front

_MOST: Final = 8  # requests that a candidate may have at once
_MOST_BYTES: Final = 32 * worker_wire.MIB  # of them together, in places that are not free
_LENT: Final = b"shared_memory_region"  # memory of a client, who has it back with the answer

GiveBack = Callable[[], None]


@dataclass(slots=True)
class _Sample:
    """A request that a candidate has."""

    infer_us: int  # of the version that serves; 0: it ran together with others, so there is no time of its own
    until: float
    bytes: int
    give_back: GiveBack | None  # None: its place is free already


@dataclass(slots=True)
class _Candidate:
    model: str
    version: str
    data: socket.socket
    share: float
    hold_seconds: float
    paused: bool = False
    samples: dict[int, _Sample] = field(default_factory=dict)
    news: dict[str, Any] = field(default_factory=dict)  # counts that the daemon does not know yet

    @property
    def held_bytes(self) -> int:
        return sum(sample.bytes for sample in self.samples.values() if sample.give_back is not None)

    def count(self, name: str, number: int = 1) -> None:
        self.news[name] = self.news.get(name, 0) + number

    def timed(self, name: str, microseconds: int) -> None:
        bins = self.news.setdefault(name, {})
        place = latency_bin(microseconds / 1000)
        bins[place] = bins.get(place, 0) + 1


class Shadows:
    """All candidates of a front. Methods run in the event loop and never wait."""

    def __init__(self, front: "Front") -> None:
        self._front = front
        self._candidates: dict[str, _Candidate] = {}
        self._number = 0

    @property
    def busy(self) -> bool:
        """Whether `tick` must come again."""
        return any(found.samples or found.news for found in self._candidates.values())

    def begin(self, order: dict[str, Any], data: socket.socket) -> None:
        """A candidate is there, perhaps after another one that died."""
        model, version = str(order["model"]), str(order["version"])
        self.end(model)
        data.setblocking(False)
        found = _Candidate(
            model, version, data, float(order["share"]), float(order["hold_seconds"]), bool(order["paused"])
        )
        self._candidates[model] = found
        self._front.loop.add_reader(data.fileno(), self._hear, found)

    def pause(self, model: str, *, on: bool) -> None:
        """Sample nothing, or again."""
        if (found := self._candidates.get(model)) is not None:
            found.paused = on

    def end(self, model: str) -> None:
        """The candidate of the model goes; whatever it has is dropped."""
        found = self._candidates.pop(model, None)
        if found is None:
            return
        self._front.loop.remove_reader(found.data.fileno())
        found.data.close()
        self._drop(found, list(found.samples))
        self._tell(found)

    def wants(self, key: Key, reply: worker_wire.Reply) -> bool:
        """Whether this answer is one of the sample."""
        if not self._candidates or (found := self._candidates.get(key[0])) is None or reply.status != 200:
            return False
        if found.paused:
            found.count("skipped")
            self._front.keep_ticking()
            return False
        return found.version != key[1] and random.random() < found.share  # noqa: S311 - a sample, no secret

    def take(self, pending: Pending, reply: worker_wire.Reply, give_back: GiveBack) -> None:
        """The client and the version that serves are through with the request: lend it, then give it back."""
        found = self._candidates.get(pending.ticket.model)
        if found is None or not self._lend(found, pending, reply, give_back):
            give_back()

    def tick(self, now: float) -> None:
        """Call now and then while busy: ends what is held for too long, tells what was counted."""
        for found in self._candidates.values():
            late = [
                number for number, entry in found.samples.items() if entry.give_back is not None and entry.until <= now
            ]
            self._drop(found, late)
            self._tell(found)

    def _lend(self, found: _Candidate, pending: Pending, reply: worker_wire.Reply, give_back: GiveBack) -> bool:
        front, place = self._front, pending.place
        if front.lending.any and _LENT in pending.text(front.arena):
            return False
        front.keep_ticking()
        if front.table.waiting:  # the device has no time to spare
            found.count("skipped")
            return False
        size, held = place.body_bytes + reply.body_bytes, found.held_bytes
        if len(found.samples) >= _MOST or (held and held + size > _MOST_BYTES):
            found.count("dropped")
            return False
        self._number += 1
        until = time.monotonic() + found.hold_seconds
        look = Look(self._number, *place, reply.body_bytes, reply.json_bytes, until)
        try:
            found.data.send(worker_shadow_wire.pack_look(look))
        except OSError:  # it died, or does not read: the next one may
            found.count("dropped")
            return False
        infer_us = reply.infer_us if reply.execution == reply.rows else 0
        found.samples[self._number] = _Sample(infer_us, until, size, give_back)
        return True

    def _hear(self, found: _Candidate) -> None:
        try:
            message = found.data.recv(worker_shadow_wire.MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message:
            self._seen(found, worker_shadow_wire.unpack_seen(message))
        elif self._candidates.get(found.model) is found:
            self.end(found.model)

    def _seen(self, found: _Candidate, seen: Seen) -> None:
        sample = found.samples.get(seen.number)
        if sample is None:
            return  # dropped meanwhile
        if seen.kind == worker_shadow_wire.MISSED:
            self._drop(found, [seen.number])
            return
        if sample.give_back is not None:
            sample.give_back()
            sample.give_back = None
        if seen.kind == worker_shadow_wire.TAKEN:
            return
        del found.samples[seen.number]
        self._count(found, sample, seen)
        self._front.keep_ticking()

    def _count(self, found: _Candidate, sample: _Sample, seen: Seen) -> None:
        if seen.kind == worker_shadow_wire.FAILED:
            found.count("failed")
            return
        found.count("requests")
        found.count("samples", seen.samples)
        found.count("agreed", seen.agreed)
        if sample.infer_us:
            found.timed("serving", sample.infer_us)
            found.timed("candidate", seen.infer_us)
        found.news["difference"] = max(found.news.get("difference", 0.0), seen.difference)

    def _drop(self, found: _Candidate, numbers: list[int]) -> None:
        for number in numbers:
            sample = found.samples.pop(number)
            found.count("dropped")
            if sample.give_back is not None:
                sample.give_back()

    def _tell(self, found: _Candidate) -> None:
        if found.news:
            self._front.tell({"shadow": [found.model, found.version], "counts": found.news})
            found.news = {}
