"""Builds what sharing needs, and keeps it up: asks at the start and from time to time, opens the door, lets chunks go.

I/O: disk, network, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from agent.peers.client import PeerClient
from agent.peers.desk import Desk
from agent.peers.door import Door
from agent.peers.passport import Passport
from agent.peers.swarm import Swarm
from agent.update.reasons import JournalBusyError
from agent.update.slot_disk import SlotDisk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx2

    from agent.settings import PeerSettings
    from agent.update.chunk_store import ChunkStore
    from agent.update.journal import Journal
    from agent.update.sources import Sources
    from shared.peers import Answer

logger = logging.getLogger(__name__)

#: Without anything to fetch, the manager is told that this device is there so often.
TELL_SECONDS: Final = 1800.0
#: After a try that came to nothing.
RETRY_SECONDS: Final = 15.0


class Peers:
    """One for a device that shares; `run` it beside the update driver."""

    def __init__(
        self,
        settings: PeerSettings,
        *,
        state_dir: Path,
        journal: Journal,
        store: ChunkStore,
        sources: Sources,
        hindered: Callable[[], Awaitable[str | None]],
        http: httpx2.AsyncClient,
        manager_url: str,
        device: str,
        seed: bytes,
        sign: Callable[[bytes], bytes],
    ) -> None:
        self._journal, self._store = journal, store
        self._serves = settings.address is not None
        self.ready = asyncio.Event()  # the manager answered once, and others may come in if they may at all
        passport = Passport(state_dir, seed=seed)
        self._desk = Desk(
            http,
            manager_url=manager_url,
            device=device,
            sign=sign,
            passport=passport,
            held=store.names,
            state_dir=state_dir,
        )
        self._client = PeerClient(passport, arrived=sources.from_peer)
        disk = SlotDisk(state_dir)

        def manifest(digest: str) -> bytes | None:
            return journal.manifest(digest) or disk.manifest_bytes(digest)

        self.door = Door(settings, passport, chunk=store.get, manifest=manifest, hindered=hindered)
        swarm = Swarm(self._desk, self._client, passport, wait_seconds=settings.wait_seconds)
        sources.share(swarm)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                if (answer := await self._round()) is not None:
                    self.ready.set()
                await asyncio.sleep(self._until_next(answer))
                self._let_go()
        finally:
            await self.door.close()
            await self._client.close()

    def _let_go(self) -> None:
        """Chunks whose time is over, while no update needs any."""
        try:
            if self._journal.update("current") is None:
                self._store.let_go()
        except (OSError, JournalBusyError) as error:  # the next time
            logger.warning("chunks not removed error=%s", error)

    async def _round(self) -> Answer | None:
        """Be known, get a passport, open the door, and tell where it is."""
        answer = await self._desk.ask()
        if answer is None or not answer.on:
            if answer is not None:
                await self.door.close()
            self._desk.address = self.door.address
            return answer
        try:
            await self.door.open()
        except OSError as error:
            logger.warning("peers are not served: cannot listen error=%s", error)
        if self.door.address != self._desk.address:
            self._desk.address = self.door.address
            answer = await self._desk.ask()
        return answer

    def _until_next(self, answer: Answer | None) -> float:
        cannot_listen = self._serves and self.door.address is None
        if answer is None or (answer.on and cannot_listen):
            return RETRY_SECONDS
        return TELL_SECONDS if answer.on else max(RETRY_SECONDS, answer.again_seconds)
