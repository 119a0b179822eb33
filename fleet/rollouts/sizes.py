"""How many bytes a rollout sends to each device: a delta to those that hold its base, the full release to others.

I/O: none.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store import releases as store
from fleet.store import tables
from shared.delta.offer import offers
from shared.errors import BadInputError
from shared.identifiers import release_path
from shared.manifest import Manifest


async def of_devices(tx: AsyncSession, release: tables.Release, previous: Mapping[str, str | None]) -> dict[str, int]:
    """Bytes on the wire by device; `previous` is the version of the model that each serves."""
    manifest = _parsed(release)
    if manifest is None:
        return dict.fromkeys(previous, 0)  # devices will refuse it with the reason; this only tells sizes
    by_base = {offer.base: offer.wire_bytes for offer in offers(await _custom(tx, release))}
    model = manifest.artifacts["model"].sealed_bytes
    by_version = {}
    for version in {found for found in previous.values() if found is not None}:
        older = await store.find(tx, release.model, version)
        base = _parsed(older) if older is not None else None
        digest = base.artifacts["model"].digest if base is not None else ""
        by_version[version] = manifest.sealed_bytes - model + min(model, by_base.get(digest, model))
    return {device: by_version.get(version or "", manifest.sealed_bytes) for device, version in previous.items()}


async def _custom(tx: AsyncSession, release: tables.Release) -> dict[str, Any]:
    """What the signed target says beside the manifest's digest."""
    row = await store.document(tx, f"model-{release.model}")
    targets = json.loads(row.data)["signed"]["targets"] if row is not None else {}
    found: dict[str, Any] = targets.get(release_path(release.model, release.version), {}).get("custom", {})
    return found


def _parsed(release: tables.Release) -> Manifest | None:
    try:
        return Manifest.parse(release.manifest)
    except BadInputError:
        return None
