"""A request under way in the front, and what its client is told when no worker answers it.

I/O: network.
"""

from dataclasses import dataclass
from typing import Final

from agent.serving import dispatch
from agent.serving.arena import Arena
from agent.serving.connection import Connection
from agent.serving.worker_wire import NO_HEADER, NOBODY


@dataclass(slots=True, eq=False)
class Pending:
    """A request that a worker has or will have."""

    ticket: dispatch.Ticket
    connection: Connection
    slot: int
    offset: int
    body_bytes: int
    json_bytes: int
    since: float
    user: int = NOBODY

    def text(self, arena: Arena) -> bytes:
        """Its JSON part, where it lies."""
        size = self.body_bytes if self.json_bytes == NO_HEADER else self.json_bytes
        return bytes(arena.request(self.slot)[self.offset : self.offset + size])


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
