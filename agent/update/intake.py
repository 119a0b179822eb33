"""Announcements: kept at once, verified in order, then waiting as the next update or refused.

I/O: disk, network, tasks.
"""

import asyncio
import logging
from collections.abc import Callable

from agent.update import lifecycle, reasons
from agent.update.bundle import BundleFolder
from agent.update.fetch import Backoff
from agent.update.journal import Journal
from agent.update.lifecycle import Draft, State, Update
from agent.update.trust import Trust
from shared.errors import RefusedError, UnavailableError
from shared.messages import Announcement, Phase

logger = logging.getLogger(__name__)


class Intake:
    """From the broker's word to an update that signed documents order."""

    def __init__(
        self,
        *,
        journal: Journal,
        trust: Trust,
        report: Callable[[Draft], None],
        accepted: Callable[[], None],
        backoff: Backoff,
        checkpoint: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._trust = trust
        self._report = report
        self._accepted = accepted
        self._backoff = backoff
        self._checkpoint = checkpoint
        self._arrived = asyncio.Event()

    async def announce(self, announcement: Announcement) -> None:
        """Durable when it returns. The same bytes again are ignored."""
        if await asyncio.to_thread(self._journal.take_in, announcement):
            self._arrived.set()

    async def bring(self, bundle: BundleFolder, number: int) -> Update | None:
        """Follow assignment `number` of `bundle`: it waits as the next update when this returns. None when this very
        assignment, or a newer one, was accepted before.

        Raises:
            RefusedError: it is not genuine, not for this device, or not to be followed.
        """
        update = await self._trust.verify_bundle(bundle, number)
        if update is None:
            return None
        if update.state is State.REFUSED:
            self._tell(update)
            raise reasons.BundleRefusedError(f"{update.detail} ({update.reason})")
        await asyncio.to_thread(bundle.check, update.manifest)
        self._accept(bundle.announcement(self._trust.device, number), update)
        return update

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for wait in self._backoff.waits():
                try:
                    await self._work_off()
                    break
                except UnavailableError as error:
                    logger.info("cannot verify yet, trying again code=%s detail=%s", error.code, error.detail)
                    await asyncio.sleep(wait)
            await self._arrived.wait()
            self._arrived.clear()

    async def _work_off(self) -> None:
        while (announcement := self._journal.oldest()) is not None:
            await self._take(announcement)

    async def _take(self, announcement: Announcement) -> None:
        try:
            update = await self._trust.verify(announcement)
        except RefusedError as error:
            self._refuse(announcement, error)
            return
        self._checkpoint("verified")
        if update is None:
            self._journal.refused(announcement)
        elif update.state is State.REFUSED:
            self._tell(update)
            self._journal.refused(announcement)
        else:
            self._accept(announcement, update)

    def _accept(self, announcement: Announcement, update: Update) -> None:
        waiting = self._journal.update("next")
        logger.info("assignment accepted assignment=%d release=%s", update.assignment, update.release)
        self._journal.accepted(announcement, update)
        self._checkpoint("accepted")
        if waiting is not None:
            self._tell(lifecycle.advance(waiting, lifecycle.Event.SUPERSEDED, reason=reasons.CANCELLED))
        self._accepted()

    def _refuse(self, announcement: Announcement, error: RefusedError) -> None:
        """Nothing in the announcement is proven, so its own number and names are not repeated."""
        logger.warning("announcement refused code=%s detail=%s", error.code, error.detail)
        self._report(Draft(assignment=0, phase=Phase.REFUSED, reason=error.code, detail=error.detail))
        self._journal.refused(announcement)

    def _tell(self, update: Update) -> None:
        logger.info("update %s release=%s reason=%s", update.state, update.release, update.reason)
        if found := lifecycle.draft(update):
            self._report(found)
