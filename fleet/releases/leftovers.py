"""Chunks that no release and no delta names, a day after they came: of uploads that were given up.

Publishing makes what it relies on count as new (`Depot.missing`), so nothing of a publish under way is old enough.

I/O: disk, network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile, Targets  # type: ignore[attr-defined]  # its stubs list no names

from fleet.releases import documents
from fleet.releases.depot import ABANDONED_AFTER
from shared.delta.offer import Description, Offer, offers
from shared.identifiers import release_path
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from fleet.releases.depot import Depot


def clear(depot: Depot, manifests: Iterable[bytes], roles: Mapping[str, bytes], now: datetime) -> int:
    """Delete them; how many there were. `manifests` are of all releases that may still be installed, `roles` the newest
    signed document of each model role.

    Raises:
        RefusedError: a document is damaged, so that nobody knows what it names; nothing is deleted.
        StoreError: the depot cannot be reached now.
    """
    before = now - ABANDONED_AFTER
    if not (old := depot.older(before)):
        return 0
    kept = named(depot, [Manifest.parse(data) for data in manifests], roles)
    return sum(depot.remove(name, before=before) for name in old if name not in kept)


def named(depot: Depot, manifests: Iterable[Manifest], roles: Mapping[str, bytes]) -> set[str]:
    """Every chunk that a device may ask for."""
    entries = {}
    for data in roles.values():
        entries.update(documents.stored(Targets, data).targets)
    found: set[str] = set()
    for manifest in manifests:
        found |= of_release(depot, manifest, entries.get(release_path(manifest.model, manifest.version)))
    return found


def of_release(depot: Depot, manifest: Manifest, entry: TargetFile | None) -> set[str]:
    """Every chunk of one release, and of the deltas that its signed entry offers.

    Raises:
        DeltaError: the description of a delta is here, and it is of another one.
    """
    found = {chunk.id for artifact in manifest.artifacts.values() for chunk in artifact.chunks}
    for offer in offers(entry.unrecognized_fields.get("custom")) if entry is not None else ():
        found.update(_of_delta(depot, offer, manifest))
    return found


def _of_delta(depot: Depot, offer: Offer, manifest: Manifest) -> Iterable[str]:
    data = depot.get(offer.description)
    if data is None:  # no device can use it, so its chunks are of no use
        return (offer.description,)
    description = Description.parse(data, offer, manifest.artifacts["model"])
    return (offer.description, *(chunk.id for chunk in description.stream.chunks))
