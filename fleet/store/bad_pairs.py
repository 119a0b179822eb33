"""Queries about releases that are proven bad on a hardware class.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from fleet.store.tables import BadPair

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.rollouts.actions import Condemned
    from fleet.rollouts.states import Rollout


async def add(tx: AsyncSession, rollout: Rollout, proven: Condemned, now: datetime) -> None:
    """Remember what a rollout proved; the newest proof stays."""
    row = await tx.get(BadPair, (rollout.model, rollout.version, proven.hardware))
    if row is None:
        row = BadPair(model=rollout.model, version=rollout.version, hardware=proven.hardware)
        tx.add(row)
    row.rollout_id, row.reason, row.detail = rollout.id, proven.reason[:64], proven.detail
    row.failed, row.ended, row.at = proven.failed, proven.ended, now


async def forgive(tx: AsyncSession, rollout: Rollout, classes: Collection[str]) -> None:
    """Forget it for these classes: the release was taken there all the same, and stayed."""
    for hardware in classes:
        row = await tx.get(BadPair, (rollout.model, rollout.version, hardware))
        if row is not None:
            await tx.delete(row)


async def of_release(tx: AsyncSession, model: str, version: str) -> Mapping[str, BadPair]:
    """Hardware class -> why the release is proven bad there."""
    query = select(BadPair).where(BadPair.model == model, BadPair.version == version)
    return {row.hardware: row for row in await tx.scalars(query)}


async def of_model(tx: AsyncSession, model: str) -> Sequence[BadPair]:
    """Every proof against a release of the model, by version and class."""
    query = select(BadPair).where(BadPair.model == model).order_by(BadPair.version, BadPair.hardware)
    return (await tx.scalars(query)).all()
