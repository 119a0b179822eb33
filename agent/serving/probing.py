"""Whether the way of a request works, all of it: listener, connection, queue, arena, the worker that answers.

    GET /v2/health/serving -> each routed model: a word into the arena, its worker writes it back -> its outcome

The word is queued like a request, so nothing overtakes and nothing is overtaken, but no model runs and nothing is
counted. A worker that is busy is none of a probe's business: `dispatch.expire` watches how long each request takes,
and a probe only from the moment at which it is the oldest.

I/O: tasks, clock, chance.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from agent.serving import dispatch, documents, worker_wire
from agent.serving.arena import Arena
from agent.serving.pending import Asker, Place

LIMIT_SECONDS: Final = 1.0  # then what is known is answered
_WORD_BYTES: Final = 16
_OFFSET: Final = 0


class Outcome(StrEnum):
    """What a probe of one model found."""

    ANSWERED = "answered"
    BUSY = "busy"  # its worker works on requests that came before
    DOWN = "down"  # it has no worker now; one is started
    SILENT = "silent"  # its worker has nothing else to do and does not answer


class Owner(Protocol):
    """What probes need of the front."""

    table: dispatch.Dispatch
    arena: Arena
    loop: asyncio.AbstractEventLoop
    numbers: Iterator[int]

    def submit(self, ticket: dispatch.Ticket, asker: Asker, place: Place) -> dispatch.Refusal | None:
        """Queue it. The asker is answered once, later, unless a refusal comes back."""


@dataclass(slots=True, eq=False)
class Probe:
    """One word on its way through one model's worker."""

    ticket: dispatch.Ticket
    word: bytes
    probes: "Probes"
    outcome: Outcome | None = None

    def respond(self, status: int, body: bytes | memoryview, **_: object) -> None:
        """The worker answered, or will not."""
        came_back = status == 200 and bytes(body) == self.word
        self.settle(Outcome.ANSWERED if came_back else Outcome.DOWN)

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.probes.settled(self)

    def so_far(self, now: float, *, has_worker: bool) -> Outcome:
        """What is to be said when nobody waits any longer."""
        if self.outcome is not None:
            return self.outcome
        if self.ticket.began is not None and now - self.ticket.began > LIMIT_SECONDS / 2:
            return Outcome.SILENT
        return Outcome.BUSY if self.ticket.held_by is not None or has_worker else Outcome.DOWN


@dataclass(slots=True, eq=False)
class _Question:
    """Who asked, and the probes that tell."""

    asker: Asker
    probes: Mapping[str, Probe]
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Probes:
    """All that are under way: at most one for each model, however many ask."""

    front: Owner
    timeout_seconds: float
    under_way: dict[str, Probe] = field(default_factory=dict)
    questions: list[_Question] = field(default_factory=list)

    def ask(self, asker: Asker) -> None:
        """Answer when every probe is back, at the latest after LIMIT_SECONDS: 503 if a worker is silent."""
        models = list(self.front.table.routes)
        question = _Question(asker, {model: self.under_way.get(model) or self._begin(model) for model in models})
        self.questions.append(question)
        question.timer = self.front.loop.call_later(LIMIT_SECONDS, self._conclude, question)
        self._conclude_ready()

    def settled(self, probe: Probe) -> None:
        """It is back."""
        if self.under_way.get(probe.ticket.model) is probe:
            del self.under_way[probe.ticket.model]
        self._conclude_ready()

    def _begin(self, model: str) -> Probe:
        deadline = time.monotonic() + self.timeout_seconds
        # Tried before: a worker that dies of something else meanwhile does not make it run twice.
        ticket = dispatch.Ticket(next(self.front.numbers), model, None, deadline, retried=True, alone=True)
        probe = Probe(ticket, secrets.token_bytes(_WORD_BYTES), self)
        slot = self.front.arena.acquire()
        if slot is None:
            probe.outcome = Outcome.BUSY
            return probe
        self.front.arena.write(slot, _OFFSET, probe.word)
        self.under_way[model] = probe
        place = Place(slot, _OFFSET, _WORD_BYTES, worker_wire.PROBE)
        if self.front.submit(ticket, probe, place) is not None:
            self.front.arena.release(slot, request_bytes=_WORD_BYTES)
            del self.under_way[model]
            probe.outcome = Outcome.BUSY if self.front.table.answering(model) else Outcome.DOWN
        return probe

    def _conclude_ready(self) -> None:
        for question in [entry for entry in self.questions if all(probe.outcome for probe in entry.probes.values())]:
            self._conclude(question)

    def _conclude(self, question: _Question) -> None:
        if question.timer is not None:
            question.timer.cancel()
        self.questions.remove(question)
        now, table = time.monotonic(), self.front.table
        found = {
            model: probe.so_far(now, has_worker=table.answering(model) is not None)
            for model, probe in question.probes.items()
        }
        if Outcome.SILENT in found.values():
            question.asker.respond(503, documents.encode(found), extra={"Retry-After": "1"})
        else:
            question.asker.respond(200, documents.encode(found))
