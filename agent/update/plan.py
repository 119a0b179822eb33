"""What must be done to have a release in the idle slot: nothing, fetch some chunks, fetch all.

I/O: none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.update.lifecycle import SlotName
from agent.update.slots import Record, State
from shared.delta.offer import Offer
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
    delta_bytes: int = 0  # on the wire, in place of the model's chunks

    @property
    def missing_bytes(self) -> int:
        """On the wire, still to come."""
        return self.delta_bytes + sum(chunk.size_bytes for chunk in self.fetch)


def plan(
    manifest: Manifest, digest: str, record: Record, has: Callable[[Chunk], bool], delta: Offer | None = None
) -> Plan:
    """The way to the release `digest`, with `delta` in place of the model's chunks where one is given.
    `has` tells whether a chunk is in the store."""
    active, idle = record.last_good, record.idle
    if active is not None and record[active].manifest == digest:
        return Plan(active, serves=True, held=False, fetch=(), total_bytes=0, plain_bytes=0)
    if record[idle].manifest == digest and record[idle].state is State.GOOD:
        return Plan(idle, serves=False, held=True, fetch=(), total_bytes=0, plain_bytes=0)
    fetch = tuple(chunk for chunk in chunks(manifest, model=delta is None) if not has(chunk))
    total = manifest.sealed_bytes
    if delta is not None:
        total += delta.wire_bytes - manifest.artifacts["model"].sealed_bytes
    return Plan(
        idle,
        serves=False,
        held=False,
        fetch=fetch,
        total_bytes=total,
        plain_bytes=manifest.plain_bytes,
        delta_bytes=delta.wire_bytes if delta is not None else 0,
    )


def chunks(manifest: Manifest, *, model: bool = True) -> tuple[Chunk, ...]:
    """Every chunk of the release once, in the order in which they are wanted; without `model` those of the rest."""
    order = ("model", "golden", "baseline") if model else ("golden", "baseline")
    ordered = [manifest.artifacts[name] for name in order if name in manifest.artifacts]
    return tuple({chunk.id: chunk for artifact in ordered for chunk in artifact.chunks}.values())


def cheapest(
    manifest: Manifest, offers: Sequence[Offer], held: str | None, has: Callable[[Chunk], bool]
) -> Offer | None:
    """The offer that takes least on the wire from the model file with the digest `held`; None where that is the full
    file, of which some chunks may be here already."""
    usable = [offer for offer in offers if offer.base == held]
    full = sum(chunk.size_bytes for chunk in manifest.artifacts["model"].chunks if not has(chunk))
    best = min(usable, key=lambda offer: offer.wire_bytes, default=None)
    return best if best is not None and best.wire_bytes < full else None
