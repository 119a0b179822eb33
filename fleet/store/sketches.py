"""Queries about hourly and daily sketches, the windows they are made from, and chosen baselines.

I/O: none.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Executable, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import BaselineChoice, Device, Sketch, Window

#: Windows that are counted in one transaction.
BATCH: Final = 2000
#: Rows that one statement names.
_CHUNK: Final = 200
#: Sketches that are read at a time.
PAGE: Final = 1000
_KEY: Final = (Sketch.device_id, Sketch.model, Sketch.version, Sketch.span, Sketch.start)
_MARK: Final = (
    update(Window.__table__)  # type: ignore[arg-type]  # FromClause; it is a Table
    .where(
        Window.device_id == bindparam("of"), Window.stream == bindparam("within"), Window.sequence == bindparam("at")
    )
    .values(counted=True)
)


class Place(NamedTuple):
    """The key of one sketch."""

    device: str
    model: str
    version: str
    span: str
    start: datetime


async def uncounted(tx: AsyncSession, *, limit: int = BATCH) -> Sequence[Window]:
    """Windows whose counts are in no sketch yet, oldest first."""
    query = select(Window).where(Window.counted.is_(False)).order_by(Window.received_at).limit(limit)
    return (await tx.scalars(query)).all()


async def mark_counted(tx: AsyncSession, windows: Sequence[Window]) -> None:
    """Their counts are in sketches of this transaction."""
    if windows:
        rows = [{"of": row.device_id, "within": row.stream, "at": row.sequence} for row in windows]
        await (await tx.connection()).execute(_MARK, rows)


async def vectors(tx: AsyncSession, places: Collection[Place]) -> Mapping[Place, bytes]:
    """What is stored at these places."""
    found: dict[Place, bytes] = {}
    for some in _chunks(sorted(places, key=lambda place: (place.start, place))):  # neighbours have much in common
        # A list for each column, as SQLite reads the whole table for a list of tuples.
        lists = [column.in_(set(values)) for column, values in zip(_KEY, zip(*some, strict=True), strict=True)]
        wanted = set(some)
        for row in await tx.scalars(select(Sketch).where(*lists)):
            if (place := _place(row)) in wanted:
                found[place] = row.vector
    return found


async def put(tx: AsyncSession, place: Place, vector: bytes, *, new: bool) -> None:
    """Store one sketch, which is `new` or replaces the one there."""
    if new:
        tx.add(
            Sketch(
                device_id=place.device,
                model=place.model,
                version=place.version,
                span=place.span,
                start=place.start,
                vector=vector,
            )
        )
        return
    key = (
        Sketch.device_id == place.device,
        Sketch.model == place.model,
        Sketch.version == place.version,
        Sketch.span == place.span,
        Sketch.start == place.start,
    )
    statement = update(Sketch).where(*key).values(vector=vector)
    await tx.execute(statement, execution_options={"synchronize_session": False})


Page = Sequence[tuple[Place, bytes]]


async def since(tx: AsyncSession, span: str, begin: datetime, *, page: int = PAGE) -> AsyncIterator[Page]:
    """Every sum of this span that began at `begin` or later, read by so many at a time."""
    key = (Sketch.device_id, Sketch.model, Sketch.version)
    query = select(*key, Sketch.start, Sketch.vector).where(Sketch.span == span, Sketch.start >= begin)
    async for rows in _pages(tx, query, page):
        yield [(Place(row[0], row[1], row[2], span, row[3]), row[4]) for row in rows]


async def first_days(tx: AsyncSession, number: int, *, page: int = PAGE) -> AsyncIterator[Page]:
    """The first `number` days of every release on every device, read by so many at a time."""
    key = (Sketch.device_id, Sketch.model, Sketch.version)
    place = func.row_number().over(partition_by=key, order_by=Sketch.start).label("place")
    ranked = select(*key, Sketch.start, Sketch.vector, place).where(Sketch.span == "day").subquery()
    async for rows in _pages(tx, select(ranked).where(ranked.c.place <= number), page):
        yield [(Place(row[0], row[1], row[2], "day", row[3]), row[4]) for row in rows]


async def _pages(tx: AsyncSession, query: Executable, page: int) -> AsyncIterator[Sequence[Any]]:
    """The rows through a cursor of the database: never all of them at once in memory."""
    found = await tx.stream(query, execution_options={"yield_per": page})
    try:
        async for rows in found.partitions():
            yield rows
    finally:
        await found.close()


async def days(
    tx: AsyncSession, model: str, version: str, *, since: datetime | None = None, devices: Collection[str] | None = None
) -> Sequence[tuple[Place, bytes]]:
    """Daily sketches of one release, oldest first; of some devices, or of all."""
    query = select(Sketch).where(Sketch.span == "day", Sketch.model == model, Sketch.version == version)
    if since is not None:
        query = query.where(Sketch.start >= since)
    rows = await tx.scalars(query.order_by(Sketch.start))
    return [(_place(row), row.vector) for row in rows if devices is None or row.device_id in devices]


async def members(tx: AsyncSession) -> Mapping[str, tuple[Mapping[str, str], str, str]]:
    """Active device -> what it serves as it last said, its site, its hardware class."""
    query = select(Device.id, Device.serving, Device.site, Device.hardware).where(Device.lifecycle == "active")
    return {row[0]: (row[1], row[2], row[3]) for row in await tx.execute(query)}


async def prune(tx: AsyncSession, *, windows: datetime, hours: datetime, days: datetime) -> int:
    """Forget what is older: single windows (if counted), hours, days. How many rows that were."""
    removed = 0
    for statement in (
        delete(Window).where(Window.received_at < windows, Window.counted.is_(True)),
        delete(Sketch).where(Sketch.span == "hour", Sketch.start < hours),
        delete(Sketch).where(Sketch.span == "day", Sketch.start < days),
    ):
        removed += int(getattr(await tx.execute(statement), "rowcount", 0))
    return removed


async def choices(tx: AsyncSession) -> Sequence[BaselineChoice]:
    """Every baseline that somebody chose."""
    return (await tx.scalars(select(BaselineChoice))).all()


async def choice(tx: AsyncSession, scope: str, model: str, version: str) -> BaselineChoice | None:
    """The one of this scope."""
    return await tx.get(BaselineChoice, (scope, model, version))


async def choose(tx: AsyncSession, row: BaselineChoice) -> None:
    """Insert or replace one."""
    await tx.merge(row)


def _place(row: Sketch) -> Place:
    return Place(row.device_id, row.model, row.version, row.span, row.start)


def _chunks(items: Sequence[Any]) -> Iterator[list[Any]]:
    walk = iter(items)
    while some := list(islice(walk, _CHUNK)):
        yield some
