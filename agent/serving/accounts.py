"""What answered requests leave behind: counts, features on their way to the daemon, classes for feedback.

Some of it comes after the answer: the features of a request, and with them the word that nobody looks at its place
in the arena any more.

I/O: clock.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.serving import documents, observations, worker_wire
from agent.serving.dispatch import Key
from agent.serving.replies import Recent


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
    tallies: dict[Key, documents.Tally] = field(default_factory=dict)
    recent: Recent = field(default_factory=Recent)
    awaited: OrderedDict[int, Awaited] = field(default_factory=OrderedDict)
    refused: int = 0

    def answered(self, key: Key, reply: worker_wire.Reply, seconds: float, give_back: Callable[[], None]) -> None:
        """A worker answered after so long. `give_back` frees the request's place in the arena."""
        error = observations.ERRORS[reply.error]
        if error is None:
            self.tallies[key].ran(reply)
            if reply.request_id:
                self.recent.remember(*key, reply.request_id, reply.classes)
        self.count(key, seconds, error)
        name = reply.request_id or str(reply.number)
        if not reply.held:
            give_back()
        batch = reply.execution if error is None else 0
        held = give_back if reply.held else None
        self.awaited[reply.number] = Awaited(key, name, seconds * 1000, error, held, batch)

    def traced(self, trace: worker_wire.Trace) -> None:
        """The features of an answered request."""
        entry = self.awaited.pop(trace.number, None)
        if entry is None:
            return
        if entry.give_back is not None:
            entry.give_back()
        about = (*entry.key, entry.request_id, entry.latency_ms, entry.error)
        self.record([observations.pack(observations.Finished(*about, trace.features, entry.batch))])

    def lost(self, key: Key) -> None:
        """The worker is gone: no more features from it."""
        for number in [number for number, entry in self.awaited.items() if entry.key == key]:
            self.traced(worker_wire.Trace(number, b""))

    def failed(self, key: Key, seconds: float, error: str) -> None:
        """A request that no worker answered."""
        self.count(key, seconds, error)
        self.refused += 1
        name = f"refused-{self.refused}"
        self.record([observations.pack(observations.Finished(*key, name, seconds * 1000, error))])

    def count(self, key: Key, seconds: float, error: str | None) -> None:
        tally = self.tallies.setdefault(key, documents.Tally())
        tally.last_ms = int(time.time() * 1000)
        if error is None:
            tally.success += 1
            tally.total_us += int(seconds * 1e6)
        else:
            tally.failed[error] = tally.failed.get(error, 0) + 1
            tally.failed_us += int(seconds * 1e6)
