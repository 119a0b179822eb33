"""Brings chunks to this device together with the others of its site: each comes to the site once.

    ask --its turn--> outside (site cache, manager) --in the store--> told with the next ask --> others take it here
        --held--> from a peer
        --neither--> wait, ask again; after `wait_seconds` without anything: go outside

I/O: network, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.peers.client import PeerBusyError
from agent.update.reasons import SourceUnavailableError
from shared.identifiers import sha256
from shared.peers import MAX_WANTED, Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from agent.peers.client import PeerClient
    from agent.peers.desk import Desk
    from agent.peers.passport import Passport
    from shared.manifest import Chunk
    from shared.peers import Answer

    Keep = Callable[[Chunk, bytes], Awaitable[None]]
    Outside = Callable[[Sequence[Chunk]], Coroutine[None, None, None]]

logger = logging.getLogger(__name__)

#: Chunks that are taken from peers at a time.
CONNECTIONS: Final = 4
#: For all remembered peers together, when a manifest is asked for.
_MANIFEST_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Work:
    """What is still to come."""

    left: dict[str, Chunk]
    failed: set[str] = field(default_factory=set)  # since the last ask: no peer gave it, although one should have
    flying: dict[str, Chunk] = field(default_factory=dict)  # on its way from outside
    outside: asyncio.Task[None] | None = None

    def landed(self) -> None:
        """Take over what came from outside; its error is raised here."""
        if self.outside is not None and self.outside.done():
            self.outside.result()
            self.left = {name: chunk for name, chunk in self.left.items() if name not in self.flying}
            self.outside, self.flying = None, {}


class Swarm:
    """Used by `agent.update.sources`; one `bring` at a time."""

    def __init__(self, desk: Desk, client: PeerClient, passport: Passport, *, wait_seconds: float) -> None:
        self._desk, self._client, self._passport, self._wait = desk, client, passport, wait_seconds

    async def bring(
        self,
        wanted: Sequence[Chunk],
        *,
        keep: Keep,
        outside: Outside,
    ) -> list[Chunk]:
        """`keep` gets what peers gave, checked; `outside` is told whose turn is ours, and has it stored when it
        returns. What comes back is for the caller to get: the site does not share, or gives nothing for too long."""
        work = _Work({chunk.id: chunk for chunk in wanted})
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._work_off(work, group, keep, outside)
                finally:
                    if work.outside is not None:
                        work.outside.cancel()
        except BaseExceptionGroup as failures:  # as from one line of work
            raise _leaf(failures) from None
        return list(work.left.values())

    async def _work_off(
        self,
        work: _Work,
        group: asyncio.TaskGroup,
        keep: Keep,
        outside: Outside,
    ) -> None:
        loop = asyncio.get_running_loop()
        moved, hurried = loop.time(), False
        while work.left:
            before = len(work.left)
            asked = list(work.left)[:MAX_WANTED]
            answer = await self._desk.ask(asked, failed=[name for name in asked if name in work.failed])
            work.failed.clear()
            if not (self._desk.known if answer is None else answer.on):
                return
            self._turn(work, answer, group, outside)
            await self._from_peers(work, self._offers(work, answer), keep)
            work.landed()
            if len(work.left) < before:
                moved = loop.time()
                continue
            if work.outside is not None:
                moved = loop.time()  # the sources outside have limits of their own
            elif loop.time() - moved >= self._wait:
                logger.info("peers give nothing, going outside chunks=%d", len(work.left))
                return
            hurried = not hurried and bool(work.failed) and answer is not None  # it may be our turn at once
            if not hurried:
                await self._pause(work, answer)
            work.landed()
        await self._desk.ask()  # what came last is for others, too

    def _turn(
        self,
        work: _Work,
        answer: Answer | None,
        group: asyncio.TaskGroup,
        outside: Outside,
    ) -> None:
        ours = [work.left[name] for name in answer.turns if name in work.left] if answer is not None else []
        if ours and work.outside is None:
            work.flying = {chunk.id: chunk for chunk in ours}
            work.outside = group.create_task(outside(ours), name="peers-turn")

    def _offers(self, work: _Work, answer: Answer | None) -> list[tuple[Chunk, Sequence[Peer]]]:
        """What to ask of whom: as the manager says, or of everybody who is remembered where he says nothing."""
        if self._passport.domain is None:
            return []
        if answer is None:
            return [(chunk, self._desk.known) for chunk in work.left.values()]
        peers = answer.peers
        return [
            (work.left[name], [peers[place] for place in places if 0 <= place < len(peers)])
            for name, places in answer.held.items()
            if name in work.left
        ]

    async def _from_peers(
        self,
        work: _Work,
        offers: Sequence[tuple[Chunk, Sequence[Peer]]],
        keep: Keep,
    ) -> None:
        queue = iter(offers)
        async with asyncio.TaskGroup() as group:
            for number in range(min(CONNECTIONS, len(offers))):
                group.create_task(self._drain(work, queue, keep), name=f"peers-{number}")

    async def _drain(
        self,
        work: _Work,
        queue: Iterator[tuple[Chunk, Sequence[Peer]]],
        keep: Keep,
    ) -> None:
        for chunk, peers in queue:
            data, busy = await self._from_one_of(chunk, peers)
            if data is not None:
                await keep(chunk, data)
                work.left.pop(chunk.id, None)
            elif not busy:
                work.failed.add(chunk.id)

    async def _from_one_of(self, chunk: Chunk, peers: Sequence[Peer]) -> tuple[bytes | None, bool]:
        """The chunk, and whether somebody was only busy."""
        busy = False
        for peer in peers:
            try:
                data = await self._client.chunk(peer, chunk)
            except PeerBusyError:
                busy = True
                continue
            except SourceUnavailableError as error:
                logger.info("peer has it not name=%s detail=%s", chunk.id[:12], error.detail)
                continue
            if sha256(data) == chunk.id:
                return data, False
            logger.warning("peer gave other content peer=%s name=%s", peer.device, chunk.id[:12])
        return None, busy

    async def _pause(self, work: _Work, answer: Answer | None) -> None:
        seconds = max(0.05, answer.again_seconds if answer is not None else 1.0)
        if work.outside is not None:
            await asyncio.wait({work.outside}, timeout=seconds)
        else:
            await asyncio.sleep(seconds)

    async def manifest(self, digest: str) -> bytes | None:
        """The manifest, if a remembered peer gives it soon."""
        if self._passport.domain is None:
            return None
        try:
            async with asyncio.timeout(_MANIFEST_SECONDS):
                for peer in self._desk.known:
                    try:
                        data = await self._client.manifest(peer, digest)
                    except SourceUnavailableError:
                        continue
                    if sha256(data) == digest:
                        return data
        except TimeoutError:
            pass
        return None


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of what went wrong."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first
