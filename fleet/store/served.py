"""Which devices have a release, and which were told of it and may still come to it.

I/O: none.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.rollouts import ACTIVE
from fleet.store.tables import Alias, Deployment, Device, Rollout


async def serving(tx: AsyncSession, model: str, version: str) -> Sequence[Device]:
    """Active devices that serve this release, by id."""
    query = select(Device).where(Device.lifecycle == "active", Device.serving[model].as_string() == version)
    return (await tx.scalars(query.order_by(Device.id))).all()


async def rollouts_to(tx: AsyncSession, model: str, version: str, states: Sequence[str]) -> Sequence[Rollout]:
    """Rollouts of this release in one of these states, the newest first."""
    query = select(Rollout).where(Rollout.model == model, Rollout.version == version, Rollout.state.in_(states))
    return (await tx.scalars(query.order_by(Rollout.created_at.desc(), Rollout.id))).all()


async def brought_by(tx: AsyncSession, rollout_id: str) -> Sequence[str]:
    """Devices that this rollout told and did not call back."""
    query = select(Deployment.device_id).where(
        Deployment.rollout_id == rollout_id, Deployment.told_at.is_not(None), Deployment.recalled_at.is_(None)
    )
    return (await tx.scalars(query.order_by(Deployment.device_id))).all()


async def still_told(tx: AsyncSession, model: str, version: str) -> Sequence[Device]:
    """Active devices whose newest assignment is this release, by a rollout that is over, and that do not serve it:
    they were away, and would fetch it when they come back."""
    query = (
        select(Device)
        .join(Deployment, Deployment.device_id == Device.id)
        .join(Rollout, Rollout.id == Deployment.rollout_id)
        .where(
            Rollout.model == model,
            Rollout.version == version,
            Rollout.state.not_in(ACTIVE),
            Device.lifecycle == "active",
            Device.assignment > 0,
            Deployment.assignment == Device.assignment,
            Deployment.recalled_at.is_(None),
        )
    )
    rows = (await tx.scalars(query.order_by(Device.id).distinct())).all()
    return [row for row in rows if row.serving.get(model) != version]


async def aliases_for(tx: AsyncSession, model: str, version: str) -> Sequence[str]:
    """Aliases of the model that stand for this version."""
    query = select(Alias.name).where(Alias.model == model, Alias.version == version)
    return (await tx.scalars(query.order_by(Alias.name))).all()
