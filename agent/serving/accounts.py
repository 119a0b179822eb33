"""What answered requests leave behind: counts, features on their way to the daemon, classes for feedback.

Some of it comes after the answer: the features of a request, and with them the word that nobody looks at its place
in the arena any more. Answers are written down several at a time, so that no client waits for that: whatever is told
from here is up to date all the same.

I/O: clock.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.serving import documents, observations, worker_wire
from agent.serving.dispatch import Key
from agent.serving.replies import Recent

_MOST_DUE: Final = 64


@dataclass(slots=True)
class Awaited:
    """An answered request whose features are still to come; then its place is given back, where it is still held."""

    key: Key
    request_id: str
    latency_ms: float
    error: str | None
    give_back: Callable[[], None] | None
    batch: int


@dataclass(slots=True)
class Accounts:
    """Of all versions since the front started. `record` takes packed observations for the daemon."""

    record: Callable[[Iterable[bytes]], None]
    awaited: OrderedDict[int, Awaited] = field(default_factory=OrderedDict)
    refused: int = 0
    _tallies: dict[Key, documents.Tally] = field(default_factory=dict)
    _recent: Recent = field(default_factory=Recent)
    _due: list[tuple[Key, worker_wire.Reply, float, Callable[[], None] | None]] = field(default_factory=list)

    @property
    def tallies(self) -> dict[Key, documents.Tally]:
        self.settle()
        return self._tallies

    @property
    def recent(self) -> Recent:
        self.settle()
        return self._recent

    def answered(self, key: Key, reply: worker_wire.Reply, seconds: float, give_back: Callable[[], None]) -> None:
        """A worker answered after so long. `give_back` frees the request's place in the arena."""
        if not reply.held:
            give_back()
        self._due.append((key, reply, seconds, give_back if reply.held else None))
        if len(self._due) >= _MOST_DUE:
            self.settle()

    def settle(self) -> None:
        """Write down what was answered."""
        due, self._due = self._due, []
        for key, reply, seconds, give_back in due:
            error = observations.ERRORS[reply.error]
            if error is None:
                self._tallies[key].ran(reply)
                if reply.request_id:
                    self._recent.remember(*key, reply.request_id, reply.classes)
            self.count(key, seconds, error)
            name = reply.request_id or str(reply.number)
            batch = reply.execution if error is None else 0
            self.awaited[reply.number] = Awaited(key, name, seconds * 1000, error, give_back, batch)

    def traced(self, trace: worker_wire.Trace) -> None:
        """The features of an answered request."""
        self.settle()
        entry = self.awaited.pop(trace.number, None)
        if entry is None:
            return
        if entry.give_back is not None:
            entry.give_back()
        about = (*entry.key, entry.request_id, entry.latency_ms, entry.error)
        self.record([observations.pack(observations.Finished(*about, trace.features, entry.batch))])

    def lost(self, key: Key) -> None:
        """The worker is gone: no more features from it."""
        self.settle()
        for number in [number for number, entry in self.awaited.items() if entry.key == key]:
            self.traced(worker_wire.Trace(number, b""))

    def failed(self, key: Key, seconds: float, error: str) -> None:
        """A request that no worker answered."""
        self.count(key, seconds, error)
        self.refused += 1
        name = f"refused-{self.refused}"
        self.record([observations.pack(observations.Finished(*key, name, seconds * 1000, error))])

    def count(self, key: Key, seconds: float, error: str | None) -> None:
        tally = self._tallies.setdefault(key, documents.Tally())
        tally.last_ms = int(time.time() * 1000)
        if error is None:
            tally.success += 1
            tally.total_us += int(seconds * 1e6)
        else:
            tally.failed[error] = tally.failed.get(error, 0) + 1
            tally.failed_us += int(seconds * 1e6)
