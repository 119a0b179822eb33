"""Queries about devices, and about the claim tokens by which they come.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, false, func, literal, not_, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.devices import filtering
from fleet.store.tables import Deployment, Device, Invite, Stream, UtcDateTime
from shared.errors import BadInputError

_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ORDERS: Final[Mapping[str, Any]] = {
    "id": Device.id,
    "name": Device.name,
    "site": Device.site,
    "hardware": Device.hardware,
    "enrolled_at": Device.enrolled_at,
    "seen_at": func.coalesce(Device.seen_at, literal(_NEVER, UtcDateTime())),
}
_TIMES: Final = {"enrolled_at", "seen_at"}


async def get(tx: AsyncSession, device_id: str) -> Device | None:
    """The device with this id."""
    return await tx.get(Device, device_id)


async def find(tx: AsyncSession, id_or_name: str) -> Device | None:
    """The device with this id, or the only one with this name."""
    found = await tx.get(Device, id_or_name)
    if found is None:
        named = (await tx.scalars(select(Device).where(Device.name == id_or_name).limit(2))).all()
        found = named[0] if len(named) == 1 else None
    return found


async def active(tx: AsyncSession, filter_text: str = "", *, outside: str | None = None) -> Sequence[Device]:
    """Every device that takes part and fits the filter, by id; with `outside`, only those not in that rollout.

    Raises:
        FilterError: it cannot be read.
    """
    query = select(Device).where(Device.lifecycle == "active", *conditions(filter_text)).order_by(Device.id)
    if outside is not None:
        there = select(Deployment.device_id).where(Deployment.rollout_id == outside, Deployment.device_id == Device.id)
        query = query.where(~there.exists())
    return (await tx.scalars(query)).all()


async def of_site(tx: AsyncSession, site: str) -> frozenset[str]:
    """Active devices of a site."""
    query = select(Device.id).where(Device.site == site, Device.lifecycle == "active")
    return frozenset((await tx.scalars(query)).all())


async def serving(tx: AsyncSession) -> Mapping[str, Mapping[str, str]]:
    """Active device -> model -> version that it serves, as it last said."""
    query = select(Device.id, Device.serving).where(Device.lifecycle == "active")
    return {row[0]: row[1] for row in await tx.execute(query)}


async def count_by_lifecycle(tx: AsyncSession) -> Mapping[str, int]:
    """Devices in each lifecycle."""
    rows = await tx.execute(select(Device.lifecycle, func.count()).group_by(Device.lifecycle))
    return {row[0]: row[1] for row in rows}


async def page(
    tx: AsyncSession, *, filter_text: str = "", order: str = "id", after: Sequence[Any] | None = None, limit: int
) -> Sequence[Device]:
    """Devices that fit `filter_text` (see `conditions`), in the order of a column (`-` in front: the other way).

    Raises:
        BadInputError: unknown key or column, malformed cursor.
    """
    column, down = _order(order)
    query = select(Device).where(*conditions(filter_text)).limit(limit)
    query = query.order_by(column.desc() if down else column.asc(), Device.id)
    if after is not None:
        query = query.where(_beyond(order.removeprefix("-"), column, down, after))
    return (await tx.scalars(query)).all()


def position(device: Device, order: str) -> list[Any]:
    """Where a page that ends with `device` continues."""
    name = order.removeprefix("-")
    value = getattr(device, name)
    return [(value or _NEVER).isoformat() if name in _TIMES else value, device.id]


def conditions(filter_text: str) -> list[ColumnElement[bool]]:
    """What a filter (`fleet.devices.filtering`) means in the database.

    Raises:
        FilterError: it cannot be read.
    """
    return [_condition(filtering.parse(filter_text))]


_COLUMNS: Final[Mapping[str, Any]] = {
    "id": Device.id,
    "name": Device.name,
    "site": Device.site,
    "hardware": Device.hardware,
    "lifecycle": Device.lifecycle,
    "agent": Device.agent_version,
    "label": Device.labels,
    "serving": Device.serving,
}


def _condition(asked: filtering.Filter) -> ColumnElement[bool]:
    match asked:
        case filtering.Word(text):
            return or_(_matches(Device.id, f"*{text}*"), _matches(Device.name, f"*{text}*"))
        case filtering.Is("online", value):
            return Device.online.is_(value == "true")
        case filtering.Is(key, value, None):
            return _matches(_COLUMNS[key], value)
        case filtering.Is(key, value, inner):
            return func.coalesce(_matches(_COLUMNS[key][inner].as_string(), value), false())
        case filtering.Not(inner):
            return not_(_condition(inner))
        case filtering.All(parts):
            return and_(true(), *(_condition(part) for part in parts))
        case filtering.Any(parts):
            return or_(false(), *(_condition(part) for part in parts))


def _matches(column: Any, value: str) -> ColumnElement[bool]:
    if "*" not in value:
        return and_(column == value)
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return and_(column.like(escaped.replace("*", "%"), escape="\\"))


def _order(order: str) -> tuple[Any, bool]:
    name = order.removeprefix("-")
    if name not in _ORDERS:
        raise BadInputError(f"devices cannot be ordered by {name[:40]!r}", remedy=f"use one of {', '.join(_ORDERS)}")
    return _ORDERS[name], order.startswith("-")


def _beyond(name: str, column: Any, down: bool, after: Sequence[Any]) -> ColumnElement[bool]:
    try:
        value, last = after
        edge: Any = literal(datetime.fromisoformat(value), UtcDateTime()) if name in _TIMES else str(value)
    except (ValueError, TypeError):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`") from None
    return or_(column < edge if down else column > edge, and_(column == edge, Device.id > str(last)))


@dataclass(frozen=True, slots=True)
class Speakers:
    """Devices that said something, and how far their outboxes have come. Held, so that no row is read twice."""

    devices: Mapping[str, Device]
    streams: dict[tuple[str, str, str], Stream]  # device, stream, kind

    def durable(self, device_id: str, stream: str) -> dict[str, int]:
        """Highest durable sequence of each kind of message of one outbox."""
        return {key[2]: row.durable for key, row in self.streams.items() if key[:2] == (device_id, stream)}

    def set_durable(self, tx: AsyncSession, key: tuple[str, str, str], sequence: int) -> None:
        """Everything of this kind up to `sequence` is stored in this transaction."""
        row = self.streams.get(key)
        if row is None:
            self.streams[key] = row = Stream(device_id=key[0], stream=key[1], kind=key[2])
            tx.add(row)
        row.durable = sequence


async def speakers(tx: AsyncSession, ids: Collection[str]) -> Speakers:
    """These devices, as far as there are such."""
    found = (await tx.scalars(select(Device).where(Device.id.in_(ids)))).all()
    rows = await tx.scalars(select(Stream).where(Stream.device_id.in_(ids)))
    return Speakers({row.id: row for row in found}, {(row.device_id, row.stream, row.kind): row for row in rows})


async def durable(tx: AsyncSession, device_id: str, stream: str) -> dict[str, int]:
    """Highest durable sequence of each kind of message of one outbox."""
    rows = await tx.scalars(select(Stream).where(Stream.device_id == device_id, Stream.stream == stream))
    return {row.kind: row.durable for row in rows}


async def shed(tx: AsyncSession, device_id: str) -> int:
    """Telemetry windows that this device threw away for want of room, over all its outboxes."""
    query = select(func.coalesce(func.sum(Stream.shed), 0)).where(Stream.device_id == device_id)
    return int(await tx.scalar(query) or 0)


async def invite_of(tx: AsyncSession, token_hash: str, now: datetime) -> Invite | None:
    """The claim token with this hash, used up or not, unless it is expired."""
    return await tx.scalar(select(Invite).where(Invite.token_hash == token_hash, Invite.expires_at > now))


async def use_invite(tx: AsyncSession, invite_id: str, now: datetime) -> bool:
    """Take one use of a claim token. Of several at once, exactly as many succeed as there are uses."""
    result = await tx.execute(
        update(Invite)
        .where(Invite.id == invite_id, Invite.uses_left > 0, Invite.expires_at > now)
        .values(uses_left=Invite.uses_left - 1)
    )
    return int(getattr(result, "rowcount", 0)) == 1


async def invites(tx: AsyncSession, *, limit: int, after: str | None = None) -> Sequence[Invite]:
    """Claim tokens by id; `after` pages on."""
    query = select(Invite).order_by(Invite.id).limit(limit)
    if after is not None:
        query = query.where(Invite.id > after)
    return (await tx.scalars(query)).all()
