"""Assign releases to devices that the network does not reach, and sign what a bundle needs besides.

    releases, devices -> one assignment each -> bundle.json signed by the director -> whoever writes the folder

The signed documents of people must outlive the bundle, so that its expiry is the only one that a device has to
believe instead of today's timestamp.

I/O: chance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from tuf.api._payload import Root, Snapshot, Targets

from fleet.devices import assigning
from fleet.releases import documents
from fleet.releases.errors import NotInitialisedError
from fleet.store import releases as store
from shared import bundle
from shared.bundle import Bundle, Packed
from shared.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.director import Director
    from fleet.store.tables import Device, Metadata, Release

TOP: Final = ("root", "targets")


class BundleLifeError(RefusedError):
    """A bundle shall be valid for longer than what people signed."""

    code = "E_BUNDLE_LIFE"
    status: ClassVar[int] = 409
    default_remedy = "give a shorter --expires, or sign the documents anew: flotilla key rotate"


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything of a bundle but manifests and chunks, as text by its path in the folder."""

    description: Bundle
    files: Mapping[str, str]


async def assemble(
    tx: AsyncSession,
    director: Director,
    *,
    releases: Sequence[Release],
    devices: Sequence[Device],
    now: datetime,
    expires: datetime,
) -> Contents:
    """Assign each of `releases` to each of `devices`, in this order, and put the signed documents together.

    Raises:
        NotInitialisedError: there is no signed metadata yet.
        BundleLifeError: root, targets or a model's role end before `expires`.
    """
    known = await store.newest_documents(tx)
    _outlive(known, releases, expires)
    files = await _metadata(tx, known)
    assignments: dict[str, tuple[int, ...]] = {}
    order = assigning.Order(expires=expires)
    for device in devices:
        numbers = []
        for release in releases:
            number = await assigning.assign(tx, director, device, release, order, now=now)
            files[bundle.assignment_path(device.id, number)] = device.assigned or ""
            numbers.append(number)
        assignments[device.id] = tuple(numbers)
    packed = tuple(Packed(model=one.model, version=one.version, manifest=one.manifest_digest) for one in releases)
    described = Bundle(created=now, expires=expires, releases=packed, assignments=assignments)
    text = described.to_bytes()
    files[bundle.DESCRIPTION] = text.decode()
    files[bundle.SIGNATURE] = json.dumps(director.signature(bundle.signed_part(text)))
    return Contents(described, files)


def _outlive(known: Mapping[str, Metadata], releases: Sequence[Release], expires: datetime) -> None:
    for role in (*TOP, *sorted({documents.role_of(release.model) for release in releases})):
        if role not in known:
            raise NotInitialisedError(f"this manager has no signed {role} yet")
        data = known[role].data
        signed = documents.stored(Root, data) if role == "root" else documents.stored(Targets, data)
        ends = signed.expires
        if ends < expires:
            raise BundleLifeError(
                f"the signed document {role} ends on {ends:%Y-%m-%d}, the bundle would on {expires:%Y-%m-%d}"
            )


async def _metadata(tx: AsyncSession, known: Mapping[str, Metadata]) -> dict[str, str]:
    """What a device fetches while it refreshes: every root, and the newest of everything else."""
    if "timestamp" not in known or "snapshot" not in known:
        raise NotInitialisedError("this manager has no signed timestamp yet")
    found = {"timestamp.json": known["timestamp"].data}
    listed = documents.stored(Snapshot, known["snapshot"].data).meta
    named = {"snapshot": known["snapshot"].version} | {
        file.removesuffix(".json"): meta.version for file, meta in listed.items()
    }
    for role, version in named.items():
        row = await store.document(tx, role, version)
        if row is not None:
            found[f"{version}.{role}.json"] = row.data
    for version in range(1, known["root"].version + 1):
        row = await store.document(tx, "root", version)
        if row is not None:
            found[f"{version}.root.json"] = row.data
    return {bundle.metadata_path(name): data.decode() for name, data in found.items()}
