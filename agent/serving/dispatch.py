"""Which worker answers which request: routes, stand-by, queue, retries, deadlines. Decides; the front acts.

A request that names no version goes to the routed version of its model; while that one's worker is down, to any
other loaded version of the model (stand-by); while there is none, it waits, bounded in number and time. A worker
works in order, so the oldest request it holds is the one it executes, with those that it may have joined. When it
dies, these are tried once more, each by itself and after all that wait, then given up (one may be what kills
workers); the others go on elsewhere as if nothing happened, and the time that a hanging worker took from them is
given back once. An answer that is the model's fault is tried once on another loaded version: while a new one is on
probation, clients do not notice.

A model that is held takes requests although none of its versions is loaded: they wait for the next one, as they
would for a worker. A model that nobody can serve answers with the reason that was given for it.

I/O: none.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

Key = tuple[str, str]  # model, version
UNSERVED_RETRY_SECONDS: Final = 30
WINDOW: Final = 8  # requests that a worker holds at once: enough to keep it busy, few to move


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way. `gone`: its client left; its place in the arena is still in use."""

    number: int
    model: str
    version: str | None  # None: whichever is routed
    deadline: float
    retried: bool = False
    alone: bool = False  # not to be joined with others: one of a batch that killed its worker
    gone: bool = False
    lent: bool = False  # it names memory of its client, who may have taken that away: not to be tried again
    pardoned: bool = False  # its deadline was moved, once, as it stood behind what hung
    held_by: Key | None = None
    began: float | None = None  # executing since


@dataclass(frozen=True, slots=True)
class Send:
    key: Key
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class GiveUp:
    ticket: Ticket
    error: str  # "worker-died", "memory" (perhaps of the client's), "timeout", "gone" (the version was unloaded)


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker has been busy with one request for too long: end it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Drained:
    key: Key


Action = Send | GiveUp | Stop | Drained


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request cannot be taken: kind, status and text for the client."""

    error: str
    status: int
    text: str
    retry_seconds: int = 1  # for the header Retry-After, with status 503


@dataclass(slots=True)
class _Version:
    up: bool = False
    leaving: bool = False
    stopping: bool = False
    most_rows: int = 1  # that its worker may run at once
    held: OrderedDict[int, Ticket] = field(default_factory=OrderedDict)

    @property
    def window(self) -> int:
        """Requests that it holds at once."""
        return WINDOW if self.most_rows == 1 else max(WINDOW, 2 * self.most_rows)

    def hold(self, key: Key, ticket: Ticket, now: float) -> None:
        ticket.began = None if self.held else now
        ticket.held_by = key
        self.held[ticket.number] = ticket

    def executing(self) -> list[Ticket]:
        """What may be running now: the oldest, and those that may have been joined with it."""
        found: list[Ticket] = []
        for ticket in self.held.values():
            if len(found) == self.most_rows or (found and ticket.alone):
                break
            found.append(ticket)
            if ticket.alone:
                break
        return found


class Dispatch:
    """The table. Every method returns what the front must do now, in order."""

    def __init__(self, *, queue_limit: int, timeout_seconds: float) -> None:
        self._queue_limit = queue_limit
        self._timeout = timeout_seconds
        self._versions: dict[Key, _Version] = {}
        self._routes: dict[str, str] = {}
        self._queues: dict[tuple[str, str | None], deque[Ticket]] = {}
        self._held: set[str] = set()
        self._reasons: dict[str, str] = {}
        self.redispatched = 0

    @property
    def routes(self) -> dict[str, str]:
        return dict(self._routes)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def busy(self) -> bool:
        return self.waiting > 0 or any(entry.held for entry in self._versions.values())

    def versions(self, model: str | None = None) -> list[Key]:
        """Loaded versions that are not leaving."""
        return [key for key, entry in self._versions.items() if not entry.leaving and model in (None, key[0])]

    def is_up(self, key: Key) -> bool:
        entry = self._versions.get(key)
        return entry is not None and entry.up and not entry.leaving and not entry.stopping

    def holds(self, key: Key) -> bool:
        """Whether its worker is at work, watched by `expire`."""
        entry = self._versions.get(key)
        return entry is not None and bool(entry.held)

    def executing(self, key: Key) -> list[Ticket]:
        """Requests that its worker may be running now."""
        entry = self._versions.get(key)
        return entry.executing() if entry else []

    def answering(self, model: str) -> str | None:
        """The version that would answer now."""
        key = self._target(model, None)
        return key[1] if key else None

    def expect(self, key: Key, most_rows: int | None = None) -> None:
        """This version is loaded; its worker may be down. It may run several requests at once, up to `most_rows`."""
        entry = self._versions.setdefault(key, _Version())
        entry.leaving = False
        if most_rows is not None:
            entry.most_rows = most_rows

    def attach(self, key: Key, now: float) -> list[Action]:
        """The worker of `key` is there."""
        self.expect(key)
        self._versions[key].up = True
        return list(self._move(now))

    def route(self, model: str, version: str | None, now: float) -> list[Action]:
        """This version answers from now on."""
        self._held.discard(model)
        self._reasons.pop(model, None)
        if version is None:
            self._routes.pop(model, None)
        else:
            self._routes[model] = version
        return list(self._move(now))

    def hold(self, model: str) -> None:
        """Until the next route, requests for the model wait whether or not a version is loaded."""
        self._held.add(model)

    def explain(self, model: str, text: str, now: float) -> list[Action]:
        """Nothing can serve the model: `text` says why. Ends a hold; an empty text and a route end it."""
        self._held.discard(model)
        self._reasons.pop(model, None)
        if text:
            self._reasons[model] = text
        return [*self._turned_away(), *self._move(now)]

    @property
    def reasons(self) -> dict[str, str]:
        """Model -> why nothing can serve it."""
        return dict(self._reasons)

    def check(self, model: str, version: str | None) -> Refusal | None:
        """Why a request for this could not be taken now."""
        loaded = self.versions(model)
        if version is None and model in self._held:
            return None
        if model in self._reasons and not loaded:
            return Refusal("busy", 503, self._reasons[model], UNSERVED_RETRY_SECONDS)
        if not self.versions():
            if self._reasons and not model:
                return Refusal("busy", 503, "; ".join(self._reasons.values()), UNSERVED_RETRY_SECONDS)
            return Refusal("busy", 503, "no model is loaded on this device yet: it waits for its first release")
        if not loaded or (version is not None and (model, version) not in loaded):
            named = f"'{model}' version {version}" if version is not None and loaded else f"'{model}'"
            return Refusal("bad-request", 404, f"Request for unknown model: {named} is not found")
        if version is None and model not in self._routes:
            return Refusal("busy", 503, f"model '{model}' is being prepared and does not answer yet")
        return None

    def submit(self, ticket: Ticket, now: float) -> list[Action] | Refusal:
        """A new request."""
        key = self._target(ticket.model, ticket.version)
        if key is not None and not self._queues.get((ticket.model, ticket.version)):
            entry = self._versions[key]
            if len(entry.held) < entry.window:
                entry.hold(key, ticket, now)
                return [Send(key, ticket)]
        refusal = self.check(ticket.model, ticket.version)
        if refusal is not None:
            return refusal
        waiting = sum(len(queue) for (model, _), queue in self._queues.items() if model == ticket.model)
        if waiting >= self._queue_limit:
            text = f"{waiting} requests for model '{ticket.model}' wait already; try again shortly"
            return Refusal("busy", 503, text)
        self._queue(ticket).append(ticket)
        return list(self._move(now))

    def answered(self, key: Key, number: int, now: float) -> tuple[Ticket | None, list[Action]]:
        """The worker of `key` answered request `number`."""
        entry = self._versions.get(key)
        ticket = entry.held.pop(number, None) if entry else None
        if entry is None or ticket is None:
            return None, []
        if entry.held:
            next(iter(entry.held.values())).began = now
        actions = list(self._move(now))
        if entry.leaving and not entry.held:
            actions.extend(self._drop(key))
        return ticket, actions

    def elsewhere(self, key: Key, number: int, fresh: int, now: float) -> list[Action] | None:
        """The model of `key` failed on request `number`: another version has it now, as `fresh`. None: nobody can."""
        entry = self._versions.get(key)
        ticket = entry.held.get(number) if entry else None
        if entry is None or ticket is None or ticket.retried or ticket.gone or ticket.version is not None:
            return None
        other = next((name for name in self.versions(key[0]) if name != key and self.is_up(name)), None)
        if other is None:
            return None
        _, actions = self.answered(key, number, now)
        there = self._versions[other]
        ticket.number, ticket.retried, ticket.held_by = fresh, True, other
        ticket.began = None if there.held else now
        there.held[fresh] = ticket  # beyond its window: it is one
        self.redispatched += 1
        return [*actions, Send(other, ticket)]

    def lost(self, key: Key, now: float) -> list[Action]:
        """The worker of `key` is gone; nobody writes to the places of its requests any more."""
        entry = self._versions.get(key)
        if entry is None:
            return []
        hung = entry.stopping
        entry.up = entry.stopping = False
        held = list(entry.held.values())
        suspects = entry.executing()
        entry.held.clear()
        actions: list[Action] = []
        for ticket in reversed(held):
            ticket.held_by = ticket.began = None
            if ticket.gone or (ticket in suspects and (ticket.retried or ticket.lent)):
                died = "memory" if ticket.lent else "worker-died"
                actions.append(GiveUp(ticket, "timeout" if hung else died))
            elif ticket not in suspects:
                if ticket.alone:  # it waited behind another suspect, which the worker died of
                    ticket.deadline = max(ticket.deadline, now + self._timeout)
                self._queue(ticket).appendleft(ticket)
        for ticket in suspects:
            if not (ticket.gone or ticket.retried or ticket.lent):
                ticket.retried = ticket.alone = True
                ticket.deadline = max(ticket.deadline, now + self._timeout)
                self.redispatched += 1
                self._queue(ticket).append(ticket)
        if entry.leaving:
            actions.extend(self._drop(key))
        actions.extend(self._move(now))
        return actions

    def detach(self, key: Key, now: float) -> list[Action]:
        """`key` is to end: it gets nothing new and is drained."""
        entry = self._versions.get(key)
        if entry is None:
            return [Drained(key)]
        entry.leaving = True
        if self._routes.get(key[0]) == key[1]:
            del self._routes[key[0]]
        actions = list(self._move(now))
        if not entry.held:
            actions.extend(self._drop(key))
        return actions

    def expire(self, now: float) -> list[Action]:
        """Call now and then while busy: ends what took too long."""
        actions: list[Action] = []
        for key, entry in self._versions.items():
            first = next(iter(entry.held.values()), None)
            late = first is not None and first.began is not None and now - first.began > self._timeout
            if late and not entry.stopping:
                entry.stopping = True
                self._pardon(key, now)
                actions.append(Stop(key))
        for queue in self._queues.values():
            for ticket in [ticket for ticket in queue if ticket.deadline <= now or ticket.gone]:
                queue.remove(ticket)
                actions.append(GiveUp(ticket, "timeout"))
        return actions

    def _pardon(self, key: Key, now: float) -> None:
        """Who waits for this version, which hangs, has all the time again; once, whatever hangs next."""
        behind = list(self._versions[key].held.values())[1:]
        waiting = [ticket for queue in self._queues.values() for ticket in queue if ticket.model == key[0]]
        for ticket in (*behind, *waiting):
            if not ticket.pardoned and ticket.version in (None, key[1]):
                ticket.pardoned = True
                ticket.deadline = max(ticket.deadline, now + self._timeout)

    def _drop(self, key: Key) -> Iterator[Action]:
        del self._versions[key]
        yield Drained(key)
        yield from self._turned_away()

    def _turned_away(self) -> Iterator[Action]:
        """What waits for something that will not come."""
        for (model, version), queue in self._queues.items():
            while queue and self.check(model, version) is not None:
                yield GiveUp(queue.popleft(), "gone")

    def _queue(self, ticket: Ticket) -> deque[Ticket]:
        return self._queues.setdefault((ticket.model, ticket.version), deque())

    def _target(self, model: str, version: str | None) -> Key | None:
        """The version that takes such a request now; None: it waits."""
        if version is not None:
            return (model, version) if self.is_up((model, version)) else None
        routed = self._routes.get(model)
        if routed is None:
            return None
        if self.is_up((model, routed)):
            return model, routed
        return next((key for key in self.versions(model) if self.is_up(key)), None)

    def _move(self, now: float) -> Iterator[Action]:
        """Hand waiting requests to workers that have room."""
        if not self._queues:
            return
        for (model, version), queue in self._queues.items():
            key = self._target(model, version) if queue else None
            if key is None:
                continue
            entry = self._versions[key]
            while queue and len(entry.held) < entry.window:
                ticket = queue.popleft()
                entry.hold(key, ticket, now)
                yield Send(key, ticket)
        for name in [name for name, queue in self._queues.items() if not queue]:
            del self._queues[name]
