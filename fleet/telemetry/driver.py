"""The shell of drift: new windows -> sums of hours -> findings -> verdicts -> rows and alerts.

Its memory is rebuilt from the store at start, so that a restart changes no verdict.

I/O: tasks.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.driver_parts import DriverParts
from fleet.store import drift as store
from fleet.store import sketches, tables
from fleet.telemetry import alarms, estimate, verdict
from fleet.telemetry.board import Board
from fleet.telemetry.finding import Cell, Finding
from fleet.telemetry.looking import Needs
from fleet.telemetry.memory import Memory
from fleet.telemetry.vectors import Calendar
from fleet.telemetry.verdict import Rule, Standing
from shared.sketches import CONFIDENCE

logger = logging.getLogger(__name__)

#: With news, never looked at more often than this.
REST_SECONDS: Final = 1.0
#: How often what is too old is removed.
PRUNE_EVERY: Final = timedelta(hours=1)
#: Verdicts that share one transaction: others write in between.
ROWS: Final = 2000


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of one row of `drift`."""

    standing: Standing
    since: datetime
    history: tuple[float, ...]
    floor: str | None  # alarms look only at what came later


class DriftDriver:
    """Compares every release on every device with its reference. One per manager."""

    def __init__(self, parts: DriverParts) -> None:
        settings = parts.settings.drift_detection
        self._parts, self._settings = parts, settings
        self._rule = Rule.of(parts.settings)
        self._calendar = Calendar.of(settings.detection_window_days)
        self._memory = Memory(self._calendar, settings.baseline_window_days)
        self._known: dict[Cell, _Known] | None = None
        self._pruned: datetime | None = None

    @property
    def refused(self) -> int:
        """Feature counts that were not merged because their bins are not those of the release."""
        return self._memory.refused

    @property
    def misplaced(self) -> int:
        """Windows whose own times could not be believed: they count where they arrived."""
        return self._memory.misplaced

    async def run(self) -> None:
        """Until cancelled: look when something was committed, at most once a second, and after the set interval."""
        seen = -1
        interval = self._parts.settings.drift_detection.monitoring_interval_hours * 3600
        while True:
            await self.evaluate()
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, interval)

    async def evaluate(self) -> None:
        """One look. Without news, no verdict is written."""
        now = self._parts.clock.now()
        known = await self._load(now)
        while await self._count(now):
            pass
        self._memory.advance(now)
        gone = self._memory.forget_stale()
        gone |= {release for release in {cell[:3] for cell in known} if not self._serves(*release)}
        needs = self._needs()
        drifted = {(cell[0], cell[3]) for cell, it in known.items() if it.standing.state == "drifted"}
        found: list[Finding] = []
        for board in self._memory.boards.values():
            if scopes := board.due():
                found += await asyncio.to_thread(board.look, scopes, needs, drifted)
        if not found and not gone:
            return
        async with self._parts.database.write() as tx:
            await alarms.forget(tx, gone, now)
        for cell in [cell for cell in known if cell[:3] in gone]:
            del known[cell]
        for start in range(0, len(found), ROWS):
            async with self._parts.database.write() as tx:
                await self._save(tx, known, found[start : start + ROWS], now)
        async with self._parts.database.write() as tx:
            standings = {cell: it.standing for cell, it in known.items()}
            wanted = alarms.wanted(standings, self._members, lambda cell, bad: self._rings_without(cell, bad, needs))
            await alarms.settle(tx, self._rule, found, standings, wanted, now)
        self._parts.hub.wake()

    async def _load(self, now: datetime) -> dict[Cell, _Known]:
        async with self._parts.database.read() as tx:
            if self._known is None:
                rows = await store.states(tx)
                await self._memory.load(tx, now)
                self._known = {(row.scope, row.model, row.version, row.feature): _remembered(row) for row in rows}
                for cell, it in self._known.items():
                    self._start_anew(cell, it.floor)
            else:
                await self._memory.refresh(tx, now)
        return self._known

    async def _count(self, now: datetime) -> bool:
        """Take one batch of windows; true when more wait."""
        async with self._parts.database.read() as tx:
            waits = bool(await sketches.uncounted(tx, limit=1))
        if not waits:
            await self._prune(now)
            return False
        async with self._parts.database.write() as tx:
            counted, more = await self._memory.count(tx, now)
        self._memory.take(counted)
        return more

    async def _prune(self, now: datetime) -> None:
        if self._pruned is not None and now - self._pruned < PRUNE_EVERY:
            return
        self._pruned, keep = now, self._settings
        hour = self._calendar.length / timedelta(hours=1)  # a day of 24 shorter hours is shorter as well
        async with self._parts.database.write() as tx:
            removed = await sketches.prune(
                tx,
                windows=now - timedelta(days=keep.window_retention_days),
                hours=now - timedelta(days=keep.hourly_retention_days) * hour,
                days=now - timedelta(days=keep.daily_retention_days) * hour,
            )
        if removed:
            logger.info("old telemetry removed rows=%d", removed)

    def _serves(self, scope: str, model: str, version: str) -> bool:
        if scope.startswith("device:"):
            return self._memory.serves(scope.removeprefix("device:"), model, version)
        return any(
            scope in self._memory.scopes_of(device) and self._memory.serves(device, model, version)
            for device in self._memory.members
        )

    def _needs(self) -> Needs:
        return Needs(
            min_samples=self._rule.min_samples,
            significance=self._rule.significance,
            limits=self._rule.limits(self._memory.rows()),
        )

    async def _save(self, tx: AsyncSession, known: dict[Cell, _Known], found: Sequence[Finding], now: datetime) -> None:
        rows: dict[bool, list[Mapping[str, Any]]] = {True: [], False: []}
        for finding in found:
            old = known.get(finding.cell)
            before = Standing() if old is None else old.standing
            standing = verdict.look(self._rule, before, finding)
            floor = None if old is None else old.floor
            if before.state == "drifted" and standing.state != "drifted":
                floor = now.isoformat()
                self._start_anew(finding.cell, floor)
            body = alarms.body(self._rule, finding, standing, () if old is None else old.history, floor)
            body |= self._estimate(finding)
            since = now if old is None or old.standing.state != standing.state else old.since
            known[finding.cell] = _Known(standing, since, tuple(body["history"]), floor)
            rows[old is None].append(_row(finding, standing, body, since, now))
        for new, some in rows.items():
            await store.save(tx, some, new=new)

    def _estimate(self, finding: Finding) -> dict[str, Any]:
        """Beside the verdict on confidence: how many answers are probably right. To be shown, decides nothing."""
        right = self._memory.right.get((finding.model, finding.version))
        if finding.feature != CONFIDENCE or right is None:
            return {}
        found = estimate.estimate(finding.counts, *right, least=self._rule.min_samples)
        return {} if found is None else {"accuracy_estimate": found.document()}

    def _board(self, cell: Cell) -> Board | None:
        return self._memory.boards.get((cell[1], cell[2]))

    def _members(self, cell: Cell) -> Sequence[str]:
        board = self._board(cell)
        return [] if board is None else self._memory.members_of(board, cell[0])

    def _rings_without(self, cell: Cell, bad: Sequence[str], needs: Needs) -> bool:
        board = self._board(cell)
        return board is not None and board.rings_without(cell[0], bad, cell[3], needs)

    def _start_anew(self, cell: Cell, floor: str | None) -> None:
        board = self._board(cell)
        if board is not None and floor is not None:
            board.start_anew(cell[0], cell[3], self._calendar.hour(datetime.fromisoformat(floor)))


def _remembered(row: tables.DriftState) -> _Known:
    state: verdict.State = next((it for it in verdict.STATES if it == row.state), "collecting")
    body: dict[str, Any] = row.body
    standing = Standing(state, quiet=int(body.get("quiet", 0)), rang=int(body.get("rang", 0)))
    return _Known(standing, row.since, tuple(body.get("history", ())), body.get("floor"))


def _row(
    finding: Finding, standing: Standing, body: dict[str, Any], since: datetime, now: datetime
) -> Mapping[str, Any]:
    return {
        "scope": finding.scope,
        "model": finding.model,
        "version": finding.version,
        "feature": finding.feature,
        "state": standing.state,
        "samples": finding.samples,
        "body": body,
        "since": since,
        "updated_at": now,
    }
