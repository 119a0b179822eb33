"""Queries about verdicts of drift, and the reference data of releases.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import DriftState, Release


async def baselines(
    tx: AsyncSession, releases: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], dict[str, Any]]:
    """(model, version) -> body of its baseline."""
    query = select(Release.model, Release.version, Release.baseline).where(
        tuple_(Release.model, Release.version).in_(list(releases))
    )
    return {(row[0], row[1]): row[2] for row in await tx.execute(query)}


async def states(
    tx: AsyncSession, *, model: str | None = None, scope: str | None = None, state: str | None = None
) -> Sequence[DriftState]:
    """Verdicts, by model, version, scope and feature."""
    query = select(DriftState).order_by(DriftState.model, DriftState.version, DriftState.scope, DriftState.feature)
    for column, value in ((DriftState.model, model), (DriftState.scope, scope), (DriftState.state, state)):
        if value is not None:
            query = query.where(column == value)
    return (await tx.scalars(query)).all()


async def save(tx: AsyncSession, rows: Sequence[Mapping[str, Any]], *, new: bool) -> None:
    """Insert verdicts (`new`), or replace those there; thousands at once."""
    if rows:
        await tx.execute(insert(DriftState) if new else update(DriftState), list(rows))


async def forget(tx: AsyncSession, scope: str, model: str, version: str) -> None:
    """Remove the verdicts on a release in one scope."""
    await tx.execute(
        delete(DriftState).where(DriftState.scope == scope, DriftState.model == model, DriftState.version == version)
    )
