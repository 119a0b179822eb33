"""Releases that are proven bad on a hardware class: the table and its queries.

I/O: none.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import String, Text, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.tables import Base

if TYPE_CHECKING:
    from fleet.rollouts.actions import Condemned
    from fleet.rollouts.states import Rollout


class BadPair(Base):
    """A release that is proven bad on a hardware class, with the evidence: not taken there again unless forced."""

    __tablename__ = "bad_pairs"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    hardware: Mapped[str] = mapped_column(String(64), primary_key=True)
    rollout_id: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))  # a code, or the name of the gate
    detail: Mapped[str] = mapped_column(Text)
    failed: Mapped[int]  # devices of the class
    ended: Mapped[int]
    at: Mapped[datetime]


async def add(tx: AsyncSession, rollout: "Rollout", proven: "Condemned", now: datetime) -> None:
    """Remember what a rollout proved; the newest proof stays."""
    row = await tx.get(BadPair, (rollout.model, rollout.version, proven.hardware))
    if row is None:
        row = BadPair(model=rollout.model, version=rollout.version, hardware=proven.hardware)
        tx.add(row)
    row.rollout_id, row.reason, row.detail = rollout.id, proven.reason[:64], proven.detail
    row.failed, row.ended, row.at = proven.failed, proven.ended, now


async def forgive(tx: AsyncSession, rollout: "Rollout", classes: Collection[str]) -> None:
    """Forget it for these classes: the release was taken there all the same, and stayed."""
    for hardware in classes:
        row = await tx.get(BadPair, (rollout.model, rollout.version, hardware))
        if row is not None:
            await tx.delete(row)


async def of_release(tx: AsyncSession, model: str, version: str) -> Mapping[str, BadPair]:
    """Hardware class -> why the release is proven bad there."""
    query = select(BadPair).where(BadPair.model == model, BadPair.version == version)
    return {row.hardware: row for row in await tx.scalars(query)}
