"""Whose turn it is: of each chunk, only so many copies leave for one site, and the others take it from each other.

    wanted --nobody has it--> a turn for the first who asks --it holds it--> peers for all others
           --the turn took too long--> a turn for one more --no copy may leave--> later, but not for ever

I/O: none.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.peers import Peer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from shared.peers import Ask

#: Turns that one device may have at a time, so that a site shares the work.
TURNS: Final = 4
#: Holders of a chunk that one device is told of.
NAMED: Final = 3
#: Serving devices that are named to one that wants nothing: for a day without the manager.
INTRODUCED: Final = 8
#: Chunks of one site that are remembered; then those that nobody asked for longest are forgotten.
MAX_CHUNKS: Final = 20_000
#: A device that no peer can help for so many times the patience need not wait each time.
_ALONE: Final = 4


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set."""

    copies: int = 2  # of a chunk, to one site
    turn_seconds: float = 60.0  # until another device may have a turn at the same chunk
    patience_seconds: float = 300.0  # until a device that comes to nothing gets a turn in any case
    offer_seconds: float = 86400.0  # that a device is named after it was heard


@dataclass(frozen=True, slots=True)
class Said:
    """What is answered. `held`: chunk -> places in `peers`."""

    turns: tuple[str, ...] = ()
    peers: tuple[Peer, ...] = ()
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Member:
    """A device of the site."""

    peer: Peer | None
    heard_at: float
    moved_at: float  # when it last came to something
    wants: bool = False  # at its last ask
    alone_until: float = 0.0


@dataclass(slots=True)
class _Chunk:
    holders: dict[str, None] = field(default_factory=dict)
    turns: dict[str, float] = field(default_factory=dict)  # device -> when it was its turn; older ones are forgotten

    def under_way(self, since: float) -> bool:
        """Whether somebody whose turn began after `since` is still fetching it."""
        return any(at > since and device not in self.holders for device, at in self.turns.items())


class _Site:
    """What is known of one site."""

    def __init__(self) -> None:
        self.members: dict[str, _Member] = {}
        self.chunks: OrderedDict[str, _Chunk] = OrderedDict()

    def chunk(self, name: str) -> _Chunk:
        found = self.chunks.setdefault(name, _Chunk())
        self.chunks.move_to_end(name)
        return found


class Ledger:
    """All sites. Times are seconds of one clock that never goes back."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._sites: dict[str, _Site] = {}
        self.turns = 0  # given, for /metrics; and of these
        self.turns_beyond = 0  # more than `copies` allows, because a device came to nothing for too long

    def ask(self, site: str, ask: Ask, now: float, members: Collection[str] | None = None) -> Said:
        """Take over what the device has; whose turn it is at what it wants, and who else has it: of `members`, who
        belong to the site at this moment (None: everybody). Asking again is harmless: a turn stays the same turn."""
        place = self._sites.setdefault(site, _Site())
        member = self._heard(place, ask, now)
        said = _Names(place, ask.device, self._rules, now, members)
        wanted = {name: place.chunk(name) for name in ask.wanted}
        for chunk in wanted.values():
            self._forget(chunk, now)
        turns = [name for name, chunk in wanted.items() if ask.device in chunk.turns]
        for name, chunk in wanted.items():
            if ask.device in chunk.turns or (name not in ask.failed and said.held(name, chunk)):
                continue
            if len(turns) < TURNS and self._may(chunk, member, now):
                chunk.turns[ask.device] = now
                turns.append(name)
        while len(place.chunks) > MAX_CHUNKS:
            place.chunks.popitem(last=False)
        if not ask.wanted:
            said.introduce()
        return Said(tuple(turns), tuple(said.peers), said.by_chunk)

    def _heard(self, place: _Site, ask: Ask, now: float) -> _Member:
        peer = None
        if ask.address is not None and ask.port is not None:
            peer = Peer(device=ask.device, address=ask.address, port=ask.port)
        member = place.members.setdefault(ask.device, _Member(peer, now, now))
        if ask.holds or not member.wants or now - member.heard_at > self._rules.patience_seconds:
            member.moved_at = now  # it came to something, or wanted nothing until now
        member.wants = bool(ask.wanted)
        member.peer, member.heard_at = peer, now
        for name in ask.holds:
            place.chunk(name).holders[ask.device] = None
        for name in ask.wanted:
            if (known := place.chunks.get(name)) is not None:
                known.holders.pop(ask.device, None)
        return member

    def _may(self, chunk: _Chunk, member: _Member, now: float) -> bool:
        """Whether the device gets a new turn, at a chunk that no other of its site can give it."""
        if len(chunk.turns) < self._rules.copies and not chunk.under_way(now - self._rules.turn_seconds):
            self.turns += 1
            return True
        if now - member.moved_at >= self._rules.patience_seconds:
            member.alone_until = now + _ALONE * self._rules.patience_seconds
        if now < member.alone_until:
            self.turns += 1
            self.turns_beyond += 1
            return True
        return False

    def _forget(self, chunk: _Chunk, now: float) -> None:
        """Turns that led to nothing for long do not count any more, nor do those whose chunks are gone."""
        patience = self._rules.patience_seconds
        over = [device for device, at in chunk.turns.items() if now - at >= max(patience, self._rules.turn_seconds)]
        for device in over:
            del chunk.turns[device]


class _Names:
    """The devices named in one answer."""

    def __init__(self, place: _Site, device: str, rules: Rules, now: float, members: Collection[str] | None) -> None:
        self._members = members
        self._place, self._device, self._rules, self._now = place, device, rules, now
        self._places: dict[str, int] = {}
        self.peers: list[Peer] = []
        self.by_chunk: dict[str, tuple[int, ...]] = {}

    def held(self, name: str, chunk: _Chunk) -> bool:
        """Name some of those who have it, others to other devices; False when there is nobody."""
        found = list(self._serving(chunk.holders))
        if not found:
            return False
        start = zlib.crc32(f"{self._device} {name}".encode()) % len(found)
        chosen = (found[start:] + found[:start])[:NAMED]
        self.by_chunk[name] = tuple(self._named(peer) for peer in chosen)
        return True

    def introduce(self) -> None:
        """Name some who serve, whatever they have."""
        for peer in _spread(list(self._serving(self._place.members)), self._device)[:INTRODUCED]:
            self._named(peer)

    def _named(self, peer: Peer) -> int:
        if peer.device not in self._places:
            self._places[peer.device] = len(self.peers)
            self.peers.append(peer)
        return self._places[peer.device]

    def _serving(self, devices: Iterable[str]) -> Iterator[Peer]:
        for device in devices:
            member = self._place.members.get(device)
            if device == self._device or member is None or member.peer is None:
                continue
            if self._members is not None and device not in self._members:
                continue
            if self._now - member.heard_at < self._rules.offer_seconds:
                yield member.peer


def _spread(peers: Sequence[Peer], device: str) -> Sequence[Peer]:
    start = zlib.crc32(device.encode()) % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]
