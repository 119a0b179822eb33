"""The process that clients talk to: listeners, HTTP, the arena, and which worker gets what. Never onnxruntime.

    python -m agent.serving.front CONTROL LEASH ARENA SETTINGS LISTENER...     (descriptors; settings as JSON)

    control socket (daemon)   in:  {"order": number, "do": "expect", "attach" (with the data socket), "route",
                                   "hold", "explain", "detach", "open" or "leave", ...}
                              out: {"done": order}, {"drained": [model, version]}, {"hang": [model, version]},
                                   {"class": scheduling class}, {"regions": how many}, {"left": true},
                                   or records of observations.py

Decisions are dispatch.py's; this module carries them out.

I/O: disk, network, process, tasks, clock.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from agent.serving import dispatch, documents, observations, routes, worker_leash, worker_scheduling, worker_wire
from agent.serving.accounts import Accounts
from agent.serving.arena import Arena
from agent.serving.connection import Body, Connection
from agent.serving.framing import Head
from agent.serving.lending import CALLS, USER_HEADER, Lending, Offer
from agent.serving.orders import Orders
from agent.serving.outbox import Outbox
from agent.serving.pending import Asker, Pending, Place, given_up, kind
from agent.serving.probing import Probes
from agent.serving.replies import infer_header, local_answer
from agent.serving.shadow import Shadows
from agent.serving.wakefulness import Wakefulness
from agent.serving.worker_wire import NOBODY

_TICK_SECONDS: Final = 0.05
_SWEEP_SECONDS: Final = 5.0
_STALL_SECONDS: Final = 30.0
_BURST: Final = 32  # messages of one worker before the others have their turn

# Filled and consumed within one call of the event loop, so all workers share it.
_news: Final = memoryview(bytearray(worker_wire.MAX_MESSAGE))


@dataclass(slots=True)
class Front:
    """All state of the process. Methods run in the event loop and never wait."""

    outbox: Outbox
    arena: Arena
    timeout_seconds: float
    table: dispatch.Dispatch
    server_version: str
    offer: Offer  # of shared memory
    most_connections: int
    loop: asyncio.AbstractEventLoop
    priority: worker_scheduling.Priority
    workers: dict[dispatch.Key, socket.socket] = field(default_factory=dict)
    loaded: dict[dispatch.Key, documents.Loaded] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)
    connections: set[Connection] = field(default_factory=set)
    deaths: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    ticking: bool = False
    wakefulness: Wakefulness | None = None
    leaving: bool = False  # connections that come now are for the next front
    accounts: Accounts = field(init=False)
    lending: Lending = field(init=False)
    probes: Probes = field(init=False)
    shadows: Shadows = field(init=False)

    def __post_init__(self) -> None:
        self.shadows = Shadows(self)
        self.accounts = Accounts(self._record)
        self.probes = Probes(self, self.timeout_seconds)
        self.lending = Lending(self.offer, lambda: self.workers, lambda count: self.tell({"regions": count}))

    @property
    def tallies(self) -> dict[dispatch.Key, documents.Tally]:
        return self.accounts.tallies

    # Clients

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        if len(self.connections) > self.most_connections:
            self._make_room(connection)

    def _make_room(self, newest: Connection) -> None:
        """There are too many: whoever has been idle for longest goes, or, where nobody is, the newest."""
        now = time.monotonic()
        idle = [entry for entry in self.connections if not entry.engaged(now)]
        if idle:
            min(idle, key=lambda entry: entry.touched).abort()
            return
        text = f"{self.most_connections} connections are open and busy; try again shortly"
        newest.respond(503, documents.error(text), extra={"Retry-After": "1"})

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if isinstance(connection.ticket, dispatch.Ticket):
            connection.ticket.gone = True  # its place in the arena is freed when the worker is through with it

    def arrived(self, connection: Connection, head: Head, route: routes.Route, body: Body) -> None:
        if route.call is routes.Call.INFER:
            self._infer(connection, head, route, body)
            return
        if route.call is routes.Call.FEEDBACK:
            status, document, feedback = self.accounts.recent.join(route.model or "", bytes(body.memory))
            self._record(map(observations.pack, feedback))
            connection.respond(status, document)
            return
        if route.call is routes.Call.SERVING:
            self.probes.ask(connection)
            return
        if route.call in CALLS:
            answer = self.lending.answer(route, self._user(connection, head), bytes(body.memory))
        else:
            answer = local_answer(self, route)
        connection.respond(answer.status, answer.body, content_type=answer.content_type, extra=answer.extra)

    def _infer(self, connection: Connection, head: Head, route: routes.Route, body: Body) -> None:
        now = time.monotonic()
        if self.wakefulness is not None:
            self.wakefulness.touch(now)
        json_bytes, fault = infer_header(head.headers, body.size)
        slot = -1 if body.slot is None else body.slot
        if fault is not None:
            self._turn_away(connection, route, slot, body.size, dispatch.Refusal("bad-request", 400, fault))
            return
        ticket = dispatch.Ticket(next(self.numbers), route.model or "", route.version, now + self.timeout_seconds)
        connection.ticket = ticket
        user = self._user(connection, head) if self.lending.any else NOBODY
        refusal = self.submit(ticket, connection, Place(slot, body.offset, body.size, json_bytes), user)
        if refusal is not None:
            self._turn_away(connection, route, slot, body.size, refusal)

    def submit(
        self, ticket: dispatch.Ticket, asker: Asker, place: Place, user: int = NOBODY
    ) -> dispatch.Refusal | None:
        """Queue a request. The asker is answered later, unless a refusal comes back."""
        now = time.monotonic()
        actions = self.table.submit(ticket, now)
        if isinstance(actions, dispatch.Refusal):
            return actions
        self.pending[ticket.number] = Pending(ticket, asker, place, now, user)
        self.perform(actions)
        self.keep_ticking()
        return None

    def _user(self, connection: Connection, head: Head) -> int:
        if connection.user is None or USER_HEADER in head.headers:
            connection.user = self.lending.user(connection.socket, head.headers)
        return connection.user

    def _turn_away(
        self, connection: Connection, route: routes.Route, slot: int, size: int, refusal: dispatch.Refusal
    ) -> None:
        self.arena.release(slot, request_bytes=size)
        version = route.version or self.table.answering(route.model or "")
        if version is not None and (route.model or "", version) in self.loaded:
            self.accounts.failed((route.model or "", version), 0.0, refusal.error)
        retry = {"Retry-After": str(refusal.retry_seconds)} if refusal.status == 503 else None
        connection.respond(refusal.status, documents.error(refusal.text), extra=retry)

    # Workers

    def attach(self, loaded: documents.Loaded, data: socket.socket) -> None:
        """The worker of a loaded version is there."""
        key = (loaded.model, loaded.version)
        before = self.workers.get(key)
        if before is not None:  # it is dead, and the news of its successor overtook that
            self._hear(key, before)
        if key in self.workers:
            self._lose(key)
        data.setblocking(False)
        self.lending.introduce(data)
        self.workers[key] = data
        self.expect(loaded)
        self.loop.add_reader(data.fileno(), self._hear, key, data)
        self.perform(self.table.attach(key, time.monotonic()))

    def expect(self, loaded: documents.Loaded) -> None:
        key = (loaded.model, loaded.version)
        self.loaded[key] = loaded
        self.accounts.tallies.setdefault(key, documents.Tally())
        self.table.expect(key, loaded.most_rows)

    def _hear(self, key: dispatch.Key, data: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                message = bytes(_news[: data.recv_into(_news)])
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                if self.workers.get(key) is data:
                    self.deaths += 1
                    self._lose(key)
                return
            answer = worker_wire.unpack_answer(message)
            if isinstance(answer, list):
                for trace in answer:
                    self.accounts.traced(trace)
            else:
                self._answer(key, answer)
            if not self.table.holds(key):
                return  # nothing more is on its way, most likely; if it is, the loop comes back here

    def _lose(self, key: dispatch.Key) -> None:
        self._forget_worker(key)
        if self.lending.any:
            for pending in [self.pending[ticket.number] for ticket in self.table.executing(key)]:
                if pending.counts:
                    pending.ticket.lent = self.lending.suspected(pending.user, pending.text(self.arena))
        self.perform(self.table.lost(key, time.monotonic()))

    def _forget_worker(self, key: dispatch.Key) -> None:
        data = self.workers.pop(key, None)
        if data is not None:
            self.loop.remove_reader(data.fileno())
            data.close()
        self.accounts.lost(key)

    def _answer(self, key: dispatch.Key, reply: worker_wire.Reply) -> None:
        now = time.monotonic()
        if reply.error in _MODELS_FAULT and self._tried_elsewhere(key, reply, now):
            return
        ticket, actions = self.table.answered(key, reply.number, now)
        pending = self.pending.pop(reply.number, None)
        if ticket is None or pending is None:
            return
        binary = reply.json_bytes != worker_wire.NO_HEADER
        if not ticket.gone:
            pending.asker.respond(
                reply.status,
                self.arena.reply(pending.place.slot, reply.body_bytes),
                content_type="application/octet-stream" if binary else "application/json",
                extra={"Inference-Header-Content-Length": str(reply.json_bytes)} if binary else None,
            )
        if pending.counts:
            give_back = partial(self._give_back, pending, reply.body_bytes)
            if self.shadows.wants(key, reply):
                give_back = partial(self.shadows.take, pending, reply, give_back)
            self.accounts.answered(key, reply, time.monotonic() - pending.since, give_back)
        else:
            self._give_back(pending, reply.body_bytes)
        self.perform(actions)
        self.keep_ticking()

    def _give_back(self, pending: Pending, reply_bytes: int = 0) -> None:
        place = pending.place
        self.arena.release(place.slot, request_bytes=place.body_bytes, reply_bytes=reply_bytes)

    def _tried_elsewhere(self, key: dispatch.Key, reply: worker_wire.Reply, now: float) -> bool:
        """Whether another version has the request now, as a new number: traces of the first do not concern it."""
        fresh = next(self.numbers)
        if (actions := self.table.elsewhere(key, reply.number, fresh, now)) is None:
            return False
        pending = self.pending[fresh] = self.pending.pop(reply.number)
        error = observations.ERRORS[reply.error] or "internal"
        self.accounts.failed(key, now - pending.since, error)
        self.perform(actions)
        return True

    # What dispatch decided

    def perform(self, actions: Iterable[dispatch.Action]) -> None:
        for action in actions:
            match action:
                case dispatch.Send(key, ticket):
                    self._send(key, ticket)
                case dispatch.GiveUp(ticket, error):
                    self._give_up(ticket, error)
                case dispatch.Stop(key):
                    self.tell({"hang": list(key)})
                case dispatch.Drained(key):
                    self._forget_worker(key)
                    self.loaded.pop(key, None)
                    self.tell({"drained": list(key)})

    def _send(self, key: dispatch.Key, ticket: dispatch.Ticket) -> None:
        pending = self.pending[ticket.number]
        request = worker_wire.Request(ticket.number, *pending.place, ticket.alone, pending.user)
        with contextlib.suppress(OSError):  # it died: its end of file is on the way and the request goes elsewhere
            self.workers[key].send(worker_wire.pack_request(request))

    def _give_up(self, ticket: dispatch.Ticket, error: str) -> None:
        pending = self.pending.pop(ticket.number)
        self._give_back(pending)
        if ticket.gone:
            return
        version = ticket.version or self.table.routes.get(ticket.model)
        latency = time.monotonic() - pending.since
        if version is not None and pending.counts:
            self.accounts.failed((ticket.model, version), latency, kind(error))
        status, text = given_up(error, ticket.model)
        retry = {"Retry-After": "1"} if status == 503 else None
        pending.asker.respond(status, documents.error(text), extra=retry)

    # The daemon

    def tell(self, document: dict[str, Any]) -> None:
        self.outbox.note(document)
        self.keep_ticking()

    def _record(self, records: Iterable[bytes]) -> None:
        self.outbox.record(records)
        self.keep_ticking()

    def keep_ticking(self) -> None:
        """There is something to watch or to tell."""
        if not self.ticking:
            self.ticking = True
            self.loop.call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Runs only while there is something to watch or to tell."""
        now = time.monotonic()
        self.ticking = False
        self.perform(self.table.expire(now))
        self.shadows.tick(now)
        self.outbox.send(now)
        if self.table.busy or self.outbox.waiting or self.shadows.busy:
            self.keep_ticking()

    def sweep(self) -> None:
        """Close connections that began a request and went silent; be quick again after a flood of requests."""
        self.priority.rise_when_rested()
        now = time.monotonic()
        for connection in [entry for entry in self.connections if entry.stalled(now, _STALL_SECONDS)]:
            connection.abort()
        self.loop.call_later(_SWEEP_SECONDS, self.sweep)


_MODELS_FAULT: Final = frozenset({worker_wire.NOT_FINITE, worker_wire.INTERNAL})


async def run(control: socket.socket, arena: int, settings: dict[str, Any], listeners: list[socket.socket]) -> None:
    """Serve until the daemon closes the control socket."""
    loop = asyncio.get_running_loop()
    control.setblocking(False)
    front = Front(
        outbox=Outbox(control),
        arena=Arena(arena),
        timeout_seconds=settings["timeout_seconds"],
        table=dispatch.Dispatch(queue_limit=settings["queue_limit"], timeout_seconds=settings["timeout_seconds"]),
        server_version=settings["version"],
        offer=settings["shared_memory"],
        most_connections=settings["max_connections"],
        loop=loop,
        wakefulness=Wakefulness(loop, wanted=settings["wakeful"]),
        priority=worker_scheduling.Priority(worker_scheduling.FRONT if settings["realtime"] else 0),
    )
    signal.signal(signal.SIGXCPU, lambda *_: front.priority.sink())  # worker_scheduling: a second without a pause
    front.outbox.note({"class": front.priority.rise()})
    orders = Orders(front, listeners)
    loop.add_reader(control.fileno(), orders.obey)
    await orders.opening.wait()  # the daemon has told all it knows: nobody is turned away for want of that
    for listener in listeners:
        if listener.family == socket.AF_UNIX:
            await loop.create_unix_server(lambda: Connection(front), sock=listener, backlog=1024)
        else:
            await loop.create_server(lambda: Connection(front), sock=listener, backlog=1024)
    front.sweep()
    gc.freeze()  # what is there now stays: collections look only at what is new
    await loop.create_future()


def main() -> None:
    control, leash, arena = (int(argument) for argument in sys.argv[1:4])
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the daemon, which ends us
        signal.signal(number, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    leash = worker_leash.bind(leash)
    listeners = [socket.socket(fileno=int(argument)) for argument in sys.argv[5:]]
    asyncio.run(run(socket.socket(fileno=control), arena, json.loads(sys.argv[4]), listeners))
    os.close(leash)


if __name__ == "__main__":
    main()
