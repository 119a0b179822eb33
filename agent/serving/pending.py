"""A request under way in the front: who waits, where it lies, and what is said when no worker answers it.

I/O: disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from agent.serving import dispatch
from agent.serving.arena import Arena
from agent.serving.worker_wire import NO_HEADER, NOBODY, PROBE


class Asker(Protocol):
    """Who waits for an answer: a client's connection, or a probe."""

    def respond(
        self,
        status: int,
        body: bytes | memoryview,
        *,
        content_type: str = "application/json",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """The answer; called once."""


class Place(NamedTuple):
    """Where the bytes of a request lie in the arena; in the order of worker_wire.Request."""

    slot: int
    offset: int
    body_bytes: int
    json_bytes: int  # NO_HEADER: all of it; PROBE: no request of a client


@dataclass(slots=True, eq=False)
class Pending:
    """A request that a worker has or will have."""

    ticket: dispatch.Ticket
    asker: Asker
    place: Place
    since: float
    user: int = NOBODY

    @property
    def counts(self) -> bool:
        """Whether a client asked."""
        return self.place.json_bytes != PROBE

    def text(self, arena: Arena) -> bytes:
        """Its JSON part, where it lies."""
        slot, offset, size, json_bytes = self.place
        return bytes(arena.request(slot)[offset : offset + (size if json_bytes == NO_HEADER else json_bytes)])


_KINDS: Final = {"gone": "internal", "memory": "bad-request"}  # as observations.ERRORS has them; others are alike
_GIVEN_UP: Final = {
    "worker-died": (500, "the process that ran model '{model}' died twice on this request; it will not be tried again"),
    "memory": (
        500,
        "the process that ran model '{model}' died on this request: its shared memory must be registered again",
    ),
    "timeout": (503, "model '{model}' did not answer in time"),
    "gone": (503, "this version of model '{model}' was just replaced; ask again"),
}


def given_up(error: str, model: str) -> tuple[int, str]:
    """Status and text for a request that dispatch gave up."""
    status, text = _GIVEN_UP[error]
    return status, text.format(model=model)


def kind(error: str) -> str:
    """As observations.ERRORS name it."""
    return _KINDS.get(error, error)
