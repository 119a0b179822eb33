"""Say which release a device shall run, in a document that only this manager's director key can sign.

I/O: chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tuf.api._payload import TargetFile, Targets
from tuf.api.metadata import Metadata

from fleet.releases import documents
from fleet.releases.errors import NotInitialisedError
from fleet.store import releases as store
from shared.messages import Announcement

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.devices.assigning import Order
    from fleet.releases.online_keys import OnlineKeys
    from fleet.store import tables

#: An escrowed content key never leaves the manager; what travels is sealed again for one device.
ASSIGN_FOLDER: Final = "assign"


class Director:
    """Signs assignments. Holds nothing but keys, so that signing twice is harmless."""

    def __init__(self, keys: OnlineKeys) -> None:
        self._keys = keys

    def assign(
        self,
        *,
        device: str,
        box_key: bytes,
        release: tables.Release,
        order: Order,
        version: int,
        now: datetime,
    ) -> str:
        """The signed assignment number `version` of `device`: run `release`, opened with the key sealed inside.

        Raises:
            EscrowError: the release's content key does not open with this manager's escrow key.
        """
        path = f"{ASSIGN_FOLDER}/{device}"
        custom = {
            "device": device,
            "model": release.model,
            "version": release.version,
            "manifest": release.manifest_digest,
            "rollout": order.rollout,
            "sealed_key": self._keys.reseal(release.escrow_key, box_key),
            **({"activate": order.activate} if order.activate != "now" else {}),
            **({"force": True} if order.force else {}),
            **order.terms.custom(),
        }
        target = TargetFile(len(release.manifest), {"sha256": release.manifest_digest}, path, {"custom": custom})
        ends = order.expires or documents.expiry(now, documents.ASSIGNMENT_DAYS)
        signed = Targets(version=version, expires=ends, targets={path: target})
        assignment = Metadata(signed)
        assignment.sign(self._keys.director)
        return documents.write(assignment).decode()

    def signature(self, data: bytes) -> dict[str, str]:
        """Key id and signature (hexadecimal) of the director over `data`."""
        made = self._keys.director.sign(data)
        return {"keyid": made.keyid, "sig": made.signature}

    async def announcement(self, tx: AsyncSession, assigned: str) -> Announcement:
        """What is published for a device: the stored assignment and today's timestamp.

        Raises:
            NotInitialisedError: there is no timestamp yet.
        """
        timestamp = await store.document(tx, "timestamp")
        if timestamp is None:
            raise NotInitialisedError("this manager has no signed metadata yet")
        return Announcement(timestamp=timestamp.data.decode(), assignment=assigned)
