"""What the driver remembers of every release, how windows get into it, and how it is rebuilt at start.

    uncounted windows ──► sums of their hours and days, in one transaction with the mark `counted` ──► boards
    at start          ──► sums of the newest 168 hours and of every device's first days            ──► boards

I/O: none.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store import drift as drift_store
from fleet.store import sketches as store
from fleet.store import tables
from fleet.store.sketches import Place
from fleet.telemetry import baselines
from fleet.telemetry.board import Board, Vector
from fleet.telemetry.finding import FLEET, level
from fleet.telemetry.layout import Layout
from fleet.telemetry.rings import HOURS
from fleet.telemetry.vectors import HOURS_A_DAY, Calendar, pack, unpack
from shared.messages import TelemetryWindow

logger = logging.getLogger(__name__)

Release = tuple[str, str]
Member = tuple[Mapping[str, str], str, str]  # what it serves, its site, its hardware class
#: A scope's name is cut to what the tables hold.
MAX_SCOPE: Final = 80


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of one release on one device in one hour, now in the store."""

    device: str
    release: Release
    hour: int
    vector: Vector


class Memory:
    """Boards by release. Belongs to one task."""

    def __init__(self, calendar: Calendar, days: int) -> None:
        self._calendar, self._number = calendar, days
        self.boards: dict[Release, Board] = {}
        self.right: dict[Release, baselines.Counts | None] = {}  # of the reference: right answers by confidence, all
        self.members: Mapping[str, Member] = {}
        self._scopes: Mapping[str, Sequence[str]] = {}
        self._chosen: dict[tuple[str, Release], datetime] = {}
        self._without: set[Release] = set()  # releases that have no baseline
        self.refused = 0  # features over bins that are not those of the release
        self.misplaced = 0  # windows whose own times could not be believed

    async def load(self, tx: AsyncSession, now: datetime) -> None:
        """Everything from the store, a page at a time."""
        await self.refresh(tx, now)
        since = self._calendar.begin(self._calendar.hour(now) - HOURS + 1)
        async for page in store.since(tx, "hour", since):
            await self._restore(tx, page, now, day=False)
        async for page in store.first_days(tx, self._number):
            await self._restore(tx, page, now, day=True)
        await self._choices(tx)

    async def refresh(self, tx: AsyncSession, now: datetime) -> None:
        """Who takes part, and what somebody chose as baseline since the last time."""
        self.members = await store.members(tx)
        self._scopes = _scopes(self.members)
        if self.boards:
            self.advance(now)
            await self._choices(tx)

    def advance(self, now: datetime) -> None:
        """Tell the time to every board."""
        for board in self.boards.values():
            board.advance(self._calendar.hour(now))

    async def count(self, tx: AsyncSession, now: datetime) -> tuple[list[Counted], bool]:
        """Put the oldest uncounted windows into the sums of their hours; what that was, and whether more wait.

        The boards learn of it by `take`, once it is durable.
        """
        rows = await store.uncounted(tx)
        await self._learn(tx, {(row.model, row.version) for row in rows})
        self.advance(now)
        sums = self._sums(rows)
        await self._write(tx, sums)
        await store.mark_counted(tx, rows)
        counted = [Counted(device, (model, version), hour, it) for (device, model, version, hour), it in sums.items()]
        return counted, len(rows) == store.BATCH

    def take(self, counted: Sequence[Counted]) -> None:
        """What `count` made durable."""
        for one in counted:
            self.boards[one.release].add(self.scopes_of(one.device), one.hour, one.vector)

    def scopes_of(self, device: str) -> Sequence[str]:
        """The scopes that a device counts in: its own, site and hardware class where there are several, the fleet."""
        return self._scopes.get(device, ())

    def devices(self, board: Board) -> list[str]:
        """Devices with counts of a release."""
        return [scope.removeprefix("device:") for scope in board.scopes if level(scope) == "device"]

    def members_of(self, board: Board, scope: str) -> list[str]:
        """Scopes of the devices that count in a group."""
        return [f"device:{device}" for device in self.devices(board) if scope in self.scopes_of(device)]

    def rows(self) -> Mapping[str, int]:
        """Level -> how many (scope, feature) there are, of all releases; groups of one device are none."""
        found: Counter[str] = Counter()
        for board in self.boards.values():
            devices = self.devices(board)
            sizes = Counter(scope for device in devices for scope in self.scopes_of(device))
            for scope in board.scopes:
                if level(scope) == "device" or sizes[scope] > 1:
                    found[level(scope)] += len(board.layout.names)
        return found

    def forget_stale(self) -> set[tuple[str, str, str]]:
        """Drop what no longer serves; (scope, model, version) of what was dropped."""
        gone: set[tuple[str, str, str]] = set()
        for (model, version), board in self.boards.items():
            dropped = [f"device:{it}" for it in self.devices(board) if not self.serves(it, model, version)]
            board.forget(dropped)
            left = {scope for device in self.devices(board) for scope in self.scopes_of(device)}
            groups = [scope for scope in board.scopes if scope not in left]
            board.forget(groups)
            gone |= {(scope, model, version) for scope in (*dropped, *groups)}
        return gone

    def serves(self, device: str, model: str, version: str) -> bool:
        """True unless the device is gone or said that it serves another version of this model."""
        known = self.members.get(device)
        return known is not None and known[0].get(model, version) == version

    async def _learn(self, tx: AsyncSession, releases: set[Release]) -> None:
        missing = releases - self.boards.keys() - self._without
        if not missing:
            return
        bodies = await drift_store.baselines(tx, missing)
        for release in missing:
            body = bodies.get(release, {})
            references = baselines.references(body)
            if references:
                self.boards[release] = Board(*release, Layout.of(references), self._number)
                self.right[release] = baselines.right(body)
            else:
                self._without.add(release)

    def _sums(self, rows: Sequence[tables.Window]) -> dict[tuple[str, str, str, int], Vector]:
        sums: dict[tuple[str, str, str, int], Vector] = {}
        for row in rows:
            board, window = self.boards.get((row.model, row.version)), _parsed(row)
            if window is None or board is None:
                self.refused += 0 if window is None else len(window.features)
                continue
            vector, refused = board.layout.flat(window.features)
            hour, believed = self._calendar.place(window.start, window.end, row.received_at)
            self.refused, self.misplaced = self.refused + refused, self.misplaced + (not believed)
            if vector.any():
                key = (row.device_id, row.model, row.version, hour)
                sums[key] = sums[key] + vector if key in sums else vector
        return sums

    async def _write(self, tx: AsyncSession, sums: Mapping[tuple[str, str, str, int], Vector]) -> None:
        more: dict[Place, Vector] = {}
        for (device, model, version, hour), vector in sums.items():
            day = self._calendar.day(hour) * HOURS_A_DAY
            for span, start in (("hour", hour), ("day", day)):
                place = Place(device, model, version, span, self._calendar.begin(start))
                more[place] = more[place] + vector if place in more else vector
        before = await store.vectors(tx, more.keys())
        for place, vector in more.items():
            stored = before.get(place)
            known = None if stored is None else unpack(stored, len(vector))
            total = vector if known is None else known + vector
            await store.put(tx, place, pack(total), new=stored is None)

    async def _restore(self, tx: AsyncSession, page: store.Page, now: datetime, *, day: bool) -> None:
        await self._learn(tx, {(place.model, place.version) for place, _ in page})
        self.advance(now)
        for place, stored in page:
            self._restore_one(place, stored, day=day)

    def _restore_one(self, place: Place, stored: bytes, *, day: bool) -> None:
        board = self.boards.get((place.model, place.version))
        vector = None if board is None else unpack(stored, board.layout.size)
        if board is None or vector is None:
            return
        hour = self._calendar.hour(place.start)
        for scope in self.scopes_of(place.device) if self.serves(place.device, place.model, place.version) else ():
            if day:
                board.add_day(scope, self._calendar.day(hour), vector)
            else:
                board.add_hour(scope, hour, vector)

    async def _choices(self, tx: AsyncSession) -> None:
        for row in await store.choices(tx):
            release = (row.model, row.version)
            board = self.boards.get(release)
            if board is None or self._chosen.get((row.scope, release)) == row.chosen_at:
                continue
            self._chosen[row.scope, release] = row.chosen_at
            vector = None if row.vector is None else unpack(row.vector, board.layout.size)
            board.choose(row.scope, vector, await self._days_of(tx, row, board))

    async def _days_of(self, tx: AsyncSession, row: tables.BaselineChoice, board: Board) -> dict[int, Vector]:
        wanted = {self._calendar.day(self._calendar.hour(datetime.fromisoformat(day))) for day in row.days}
        found: dict[int, Vector] = defaultdict(lambda: np.zeros(board.layout.size, dtype=np.int64))
        for place, stored in await store.days(tx, row.model, row.version):
            day, vector = self._calendar.day(self._calendar.hour(place.start)), unpack(stored, board.layout.size)
            if day in wanted and vector is not None and row.scope in self.scopes_of(place.device):
                found[day] = found[day] + vector
        return dict(found)


def _scopes(members: Mapping[str, Member]) -> Mapping[str, Sequence[str]]:
    several = [len({member[place] for member in members.values()}) > 1 for place in (1, 2)]
    found: dict[str, Sequence[str]] = {}
    for device, (_, site, hardware) in members.items():
        groups = [f"site:{site}"[:MAX_SCOPE]] if site and several[0] else []
        groups += [f"hardware:{hardware}"[:MAX_SCOPE]] if hardware and several[1] else []
        found[device] = (f"device:{device}", *groups, FLEET)
    return found


def _parsed(row: tables.Window) -> TelemetryWindow | None:
    try:
        return TelemetryWindow.model_validate(row.body)
    except ValidationError:
        logger.warning("window of another form device=%s sequence=%s", row.device_id, row.sequence)
        return None
