"""Rows to turns: what windows and other rollouts mean for each device of a rollout at this moment.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.devices.terms import Terms
from fleet.rollouts import saved
from fleet.rollouts.states import ENDED, Member, Rollout
from fleet.schedules import timing
from fleet.schedules.precedence import Rival, held_by
from fleet.store import tables
from fleet.store.rollouts import ACTIVE

#: What an agent says when it keeps more versions than it has slots.
KEEPS: Final = "keep-versions"
#: What is owed to devices that swap by it: those that only stage wait for the switch, which keeps to the window.
_SWAPS: Final = frozenset({"announce", "switch"})


class _Place(NamedTuple):
    """What a window asks of a device; there may be a hundred thousand, too many to load as objects."""

    labels: Mapping[str, Any]
    features: Collection[str]


async def in_turn(
    tx: AsyncSession,
    row: tables.Rollout,
    members: Sequence[Member],
    now: datetime,
) -> tuple[Member, ...]:
    """The members with why each of them is not told yet, and the time that does not count against it."""
    rollout = saved.from_json(row.body)
    rivals = await _rivals(tx, row.id)
    if rollout.window is None and not rivals:
        return tuple(members)
    places = await _places(tx, row.id)
    return tuple(
        member if member.ended else _placed(member, row, rollout, places[member.device], rivals, now)
        for member in members
    )


def _placed(
    member: Member,
    row: tables.Rollout,
    rollout: Rollout,
    place: _Place,
    rivals: Mapping[str, Sequence[Rival]],
    now: datetime,
) -> Member:
    waits = timing.FEATURE in place.features
    turn = timing.Turn()
    if rollout.window is not None and (member.touched or not waits):
        window = timing.window_of(rollout.window, row.id, member.device, place.labels)
        turn = timing.turn(window, waits_itself=waits, online=member.online, told_at=member.told_at, now=now)
    held = held_by(row.model, rollout.priority, rivals.get(member.device, ())) or turn.held
    held = None if member.touched else held
    if held is None and not turn.closed:
        return member
    return replace(member, held=held, closed=turn.closed)


async def terms(tx: AsyncSession, debt: tables.OwedAction, device: tables.Device, keep_versions: int) -> Terms:
    """What the assignment that pays `debt` says beside its release. The way back never waits for a window."""
    row = await tx.get(tables.Rollout, debt.rollout_id)
    rollout = saved.from_json(row.body) if row is not None else None
    table = rollout.window if rollout is not None and debt.kind in _SWAPS else None
    shadow = rollout.shadow if rollout is not None and debt.kind == "announce" else None
    window = None
    if table is not None and timing.FEATURE in device.features:
        window = timing.window_of(table, debt.rollout_id, device.id, device.labels)
    return Terms(window, keep_versions if KEEPS in device.features else None, shadow)


async def _places(tx: AsyncSession, rollout_id: str) -> Mapping[str, _Place]:
    mine = select(tables.Deployment.device_id).where(tables.Deployment.rollout_id == rollout_id)
    query = select(tables.Device.id, tables.Device.labels, tables.Device.features).where(tables.Device.id.in_(mine))
    return {device: _Place(labels, features) for device, labels, features in await tx.execute(query)}


async def _rivals(tx: AsyncSession, rollout_id: str) -> Mapping[str, Sequence[Rival]]:
    """Device of the rollout -> the other rollouts under way that it takes part in."""
    mine = select(tables.Deployment.device_id).where(tables.Deployment.rollout_id == rollout_id)
    query = (
        select(tables.Deployment, tables.Rollout)
        .join(tables.Rollout, tables.Rollout.id == tables.Deployment.rollout_id)
        .where(
            tables.Rollout.state.in_(ACTIVE),
            tables.Rollout.id != rollout_id,
            tables.Deployment.device_id.in_(mine),
        )
        .order_by(tables.Rollout.created_at)
    )
    found: dict[str, list[Rival]] = {}
    for deployment, other in await tx.execute(query):
        found.setdefault(deployment.device_id, []).append(
            Rival(
                rollout=other.id,
                model=other.model,
                priority=saved.from_json(other.body).priority,
                told=deployment.told_at is not None,
                ended=deployment.state in ENDED,
            )
        )
    return found
