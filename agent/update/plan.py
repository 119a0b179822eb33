"""What must be done to have a release in the idle slot: nothing, fetch some chunks, fetch all.

I/O: none.
"""

from collections.abc import Callable
from dataclasses import dataclass

from agent.update.lifecycle import SlotName
from agent.update.slots import Record, State
from shared.manifest import Chunk, Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get there. `serves` and `held` exclude each other; both mean that nothing is fetched."""

    slot: SlotName
    serves: bool  # the release answers requests already
    held: bool  # the idle slot holds it, good
    fetch: tuple[Chunk, ...]  # in order: the model first, since it decides most
    total_bytes: int  # on the wire, of the whole release
    plain_bytes: int  # to be written into the slot

    @property
    def missing_bytes(self) -> int:
        """On the wire, still to come."""
        return sum(chunk.size_bytes for chunk in self.fetch)


def plan(manifest: Manifest, digest: str, record: Record, has: Callable[[Chunk], bool]) -> Plan:
    """The cheapest way to the release `digest`. `has` tells whether a chunk is in the store."""
    active, idle = record.last_good, record.idle
    if active is not None and record[active].manifest == digest:
        return Plan(active, serves=True, held=False, fetch=(), total_bytes=0, plain_bytes=0)
    if record[idle].manifest == digest and record[idle].state is State.GOOD:
        return Plan(idle, serves=False, held=True, fetch=(), total_bytes=0, plain_bytes=0)
    fetch = tuple(chunk for chunk in chunks(manifest) if not has(chunk))
    return Plan(
        idle,
        serves=False,
        held=False,
        fetch=fetch,
        total_bytes=manifest.sealed_bytes,
        plain_bytes=manifest.plain_bytes,
    )


def chunks(manifest: Manifest) -> tuple[Chunk, ...]:
    """Every chunk of the release once, in the order in which they are wanted."""
    ordered = sorted(manifest.artifacts.items(), key=lambda item: ("model", "golden", "baseline").index(item[0]))
    return tuple({chunk.id: chunk for _, artifact in ordered for chunk in artifact.chunks}.values())
