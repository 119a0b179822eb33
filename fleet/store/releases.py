"""Queries about releases and about the signed documents around them.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Metadata, Release
from shared.manifest import Manifest

#: In the place of a role: a restore from a backup, `version` is the floor of all numbers since (`releases.floors`).
RESTORED: Final = "restored"


async def find(tx: AsyncSession, model: str, version: str) -> Release | None:
    """One version, withdrawn or not."""
    return await tx.get(Release, (model, version))


async def metrics(tx: AsyncSession, model: str, version: str) -> Mapping[str, float] | None:
    """Accuracy and the like of a release on its reference data; None when there is no such release."""
    found = await find(tx, model, version)
    return None if found is None else Manifest.parse(found.manifest).metrics


async def by_digest(tx: AsyncSession, manifest_digest: str) -> Release | None:
    """The release whose manifest has this digest."""
    return await tx.scalar(select(Release).where(Release.manifest_digest == manifest_digest))


async def of_model(tx: AsyncSession, model: str) -> Sequence[Release]:
    """All versions of a model, newest counter first."""
    return (await tx.scalars(select(Release).where(Release.model == model).order_by(Release.counter.desc()))).all()


async def every(tx: AsyncSession) -> Sequence[Release]:
    """All releases: by model, newest counter first."""
    return (await tx.scalars(select(Release).order_by(Release.model, Release.counter.desc()))).all()


async def withdrawn(tx: AsyncSession, model: str | None = None) -> Mapping[str, str]:
    """`model@version` -> why, of the releases that are given to nobody any more."""
    query = select(Release.model, Release.version, Release.withdrawn_reason).where(Release.withdrawn_at.is_not(None))
    rows = await tx.execute(query if model is None else query.where(Release.model == model))
    return {f"{row[0]}@{row[1]}": row[2] or "" for row in rows}


async def last_counter(tx: AsyncSession, model: str) -> int:
    """The highest counter of a model; 0 before its first release."""
    return await tx.scalar(select(func.max(Release.counter)).where(Release.model == model)) or 0


async def document(tx: AsyncSession, role: str, version: int | None = None) -> Metadata | None:
    """One signed document, the newest if no version is named."""
    query = select(Metadata).where(Metadata.role == role).order_by(Metadata.version.desc()).limit(1)
    return await tx.scalar(query if version is None else query.where(Metadata.version == version))


async def newest_documents(tx: AsyncSession) -> Mapping[str, Metadata]:
    """Role -> its newest signed document."""
    roles = select(Metadata.role, func.max(Metadata.version).label("version")).where(Metadata.role != RESTORED)
    newest = roles.group_by(Metadata.role).subquery()
    query = select(Metadata).join(newest, (Metadata.role == newest.c.role) & (Metadata.version == newest.c.version))
    return {row.role: row for row in (await tx.scalars(query)).all()}


async def floor(tx: AsyncSession) -> int:
    """What every version of a document, assignment and counter must reach; 0 where nothing was ever restored."""
    return await tx.scalar(select(func.max(Metadata.version)).where(Metadata.role == RESTORED)) or 0


async def save_document(tx: AsyncSession, role: str, version: int, data: bytes, *, keep: int | None) -> None:
    """Store a signed document; of the older ones of this role `keep` stay (None: all)."""
    await tx.merge(Metadata(role=role, version=version, data=data))
    if keep is not None:
        await tx.execute(delete(Metadata).where(Metadata.role == role, Metadata.version < version - keep))
    await tx.flush()
