"""The online half of the TUF repository: verify what people signed, complete it, hand it out.

    people's root, targets, model roles --verified--> table Metadata --snapshot, timestamp--> devices

Nothing is accepted that a device would refuse. Every method works inside the caller's transaction, so that a
refusal leaves everything as it was.

I/O: chance.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from tuf.api._payload import MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.metadata import Metadata

from fleet.releases import documents
from fleet.releases.documents import DIRECTOR, model_of, role_of
from fleet.releases.errors import MetadataError, NoDocumentError, NotInitialisedError, OnlineKeysError, RestoredError
from fleet.releases.floors import following
from fleet.store import releases as store
from shared.identifiers import release_path, sha256
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.online_keys import OnlineKeys
    from fleet.store import tables

logger = logging.getLogger(__name__)

KEPT_VERSIONS: Final = 8  # a device in the middle of a refresh still finds what its timestamp named
_FILE: Final = re.compile(r"(?:([1-9][0-9]{0,9})\.)?([a-z0-9-]{1,80})\.json")


class Repository:
    """Signed documents in the database. Holds nothing but keys."""

    def __init__(self, keys: OnlineKeys) -> None:
        self._keys = keys

    async def trust(
        self, tx: AsyncSession, *, root: bytes, targets: bytes, roles: Mapping[str, bytes], now: datetime
    ) -> None:
        """Take the first or the next root and top-level targets, and `roles` signed anew for them.

        What is there already byte for byte is accepted again.

        Raises:
            MetadataError: a device would refuse this.
            OnlineKeysError: the root or targets name other online keys than this manager's.
        """
        floor = await store.floor(tx)
        new_root = await self._accept_root(tx, root, now)
        new_targets = await self._accept_targets(tx, new_root, targets, now)
        known = await store.newest_documents(tx)
        if unknown := roles.keys() - self._model_roles(new_targets):
            raise MetadataError(f"{min(unknown)} is signed but not delegated by targets")
        for role in sorted(self._model_roles(new_targets)):
            if role in roles:
                await self._accept_role(tx, new_targets, role, roles[role], None, now)
            elif role not in known:
                raise MetadataError(f"targets delegates {role}, of which there is no document")
            elif known[role].version < floor:
                raise RestoredError(f"{role} has version {known[role].version}, from before the restore")
            else:
                documents.verify(new_targets, role, documents.read(Targets, known[role].data), now)
        await self.refresh(tx, now)

    async def release(
        self, tx: AsyncSession, *, manifest: bytes, role: bytes, targets: bytes | None, now: datetime
    ) -> None:
        """Take the model role that vouches for the release `manifest` besides all known ones of its model.

        Raises:
            NotInitialisedError: there is no root yet.
            RestoredError: the documents from before a restore were not signed anew yet.
            MetadataError: a device would refuse this.
        """
        if behind := await self.behind(tx):
            raise RestoredError(f"this manager was restored from a backup, and {behind} is from before that")
        described = Manifest.parse(manifest)
        root_row = await store.document(tx, "root")
        if root_row is None:
            raise NotInitialisedError("this manager has no root of trust yet")
        root = documents.stored(Root, root_row.data)
        if targets is None:
            row = await store.document(tx, "targets")
            if row is None:
                raise NotInitialisedError("this manager has no top-level targets yet")
            top = documents.stored(Targets, row.data)
        else:
            top = await self._accept_targets(tx, root, targets, now)
        if not self._trusted(root):
            raise OnlineKeysError("root does not trust this manager's snapshot and timestamp keys")
        self._check_delegations(top)
        if role_of(described.model) not in self._model_roles(top):
            raise MetadataError(f"targets does not delegate {role_of(described.model)}")
        await self._accept_role(tx, top, role_of(described.model), role, manifest, now)
        await self.refresh(tx, now)

    async def refresh(self, tx: AsyncSession, now: datetime) -> bool:
        """Sign snapshot and timestamp anew where content, keys or half of their life demand it. True if so.

        What devices would refuse is not signed: nothing happens while root trusts other online keys than ours.
        """
        known = await store.newest_documents(tx)
        if "root" not in known or "targets" not in known:
            return False
        if behind := await self.behind(tx):
            logger.error("metadata not refreshed after a restore: run `flotilla init` role=%s", behind)
            return False
        root = documents.stored(Root, known["root"].data)
        if not self._trusted(root):
            logger.error("metadata not refreshed: root trusts other online keys; run `flotilla key rotate online`")
            return False
        versions = {
            f"{role}.json": row.version for role, row in known.items() if role == "targets" or role.startswith("model-")
        }
        snapshot, changed = await self._refresh_snapshot(tx, root, known.get("snapshot"), versions, now)
        return await self._refresh_timestamp(tx, root, known.get("timestamp"), snapshot, now) or changed

    @staticmethod
    async def behind(tx: AsyncSession) -> str | None:
        """A role that people must sign anew before a device believes this manager again, after a restore."""
        floor = await store.floor(tx)
        found = [role for role, row in (await store.newest_documents(tx)).items()
                 if row.version < floor and (role == "targets" or role.startswith("model-"))]  # fmt: skip
        return min(found, default=None)

    async def document(self, tx: AsyncSession, file_name: str) -> bytes:
        """The file that devices know by `file_name`: `3.snapshot.json`, `timestamp.json`.

        Raises:
            NoDocumentError: there is none.
        """
        match = _FILE.fullmatch(file_name)
        row = await store.document(tx, match[2], int(match[1]) if match[1] else None) if match else None
        if row is None or row.role == store.RESTORED:
            raise NoDocumentError(f"no metadata file {file_name[:100]!r}")
        return row.data

    def _trusted(self, root: Root) -> bool:
        """True when one signature of each of our keys is enough for snapshot and timestamp."""
        ours = (("snapshot", self._keys.snapshot), ("timestamp", self._keys.timestamp))
        return all(
            root.roles[name].threshold == 1 and signer.public_key.keyid in root.roles[name].keyids
            for name, signer in ours
        )

    async def _accept_root(self, tx: AsyncSession, data: bytes, now: datetime) -> Root:
        new = documents.read(Root, data)
        row = await store.document(tx, "root")
        if row is not None and row.data == data:
            return new.signed
        expected = row.version + 1 if row else 1
        if new.signed.version != expected:
            raise MetadataError(f"root has version {new.signed.version}; {expected} comes next")
        if row is not None:
            documents.verify(documents.stored(Root, row.data), "root", new, now)
        documents.verify(new.signed, "root", new, now)
        documents.honest_keys(new.signed.keys)
        if not new.signed.consistent_snapshot:
            raise MetadataError("root does not ask for consistent snapshots")
        if not self._trusted(new.signed):
            raise OnlineKeysError("root does not trust this manager's snapshot and timestamp keys")
        await store.save_document(tx, "root", new.signed.version, data, keep=None)
        logger.info("root accepted version=%d", new.signed.version)
        return new.signed

    async def _accept_targets(self, tx: AsyncSession, root: Root, data: bytes, now: datetime) -> Targets:
        new = documents.read(Targets, data)
        documents.verify(root, "targets", new, now)
        row = await store.document(tx, "targets")
        if row is not None and row.data == data:
            return new.signed
        least = following(row.version if row else 0, await store.floor(tx))
        if new.signed.version < least:
            raise MetadataError(f"targets has version {new.signed.version}; {least} comes next")
        self._check_delegations(new.signed)
        if row is not None and (
            lost := self._model_roles(documents.stored(Targets, row.data)) - self._model_roles(new.signed)
        ):
            raise MetadataError(f"targets no longer delegates {min(lost)}: devices would refuse the snapshot")
        await store.save_document(tx, "targets", new.signed.version, data, keep=KEPT_VERSIONS)
        return new.signed

    def _check_delegations(self, targets: Targets) -> None:
        delegations = targets.delegations
        if targets.targets or delegations is None or not delegations.roles:
            raise MetadataError("top-level targets must delegate everything and list nothing itself")
        documents.honest_keys(delegations.keys)
        for name, role in delegations.roles.items():
            if name == DIRECTOR:
                if role != documents.director_role(self._keys.director.public_key):
                    raise OnlineKeysError("targets does not delegate assignments to this manager's director key")
            elif not name.startswith("model-") or role.paths != [f"{model_of(name)}/*/manifest.json"]:
                raise MetadataError(f"targets delegates {name!r} for other paths than its own manifests")
        if DIRECTOR not in delegations.roles:
            raise OnlineKeysError("targets does not delegate assignments to anybody")

    @staticmethod
    def _model_roles(targets: Targets) -> set[str]:
        roles = targets.delegations.roles if targets.delegations else None
        return {name for name in roles or () if name != DIRECTOR}

    async def _accept_role(
        self, tx: AsyncSession, top: Targets, role: str, data: bytes, added: bytes | None, now: datetime
    ) -> None:
        """One model role: signed, one version on, and vouching for exactly the releases that are known and `added`."""
        new = documents.read(Targets, data)
        documents.verify(top, role, new, now)
        row = await store.document(tx, role)
        if row is not None and row.data == data and added is None:
            return
        expected = following(row.version if row else 0, await store.floor(tx))
        if new.signed.version != expected:
            raise MetadataError(f"{role} has version {new.signed.version}; {expected} comes next")
        manifests = [release.manifest for release in await store.of_model(tx, model_of(role))]
        manifests += [added] if added is not None else []
        listed = dict(new.signed.targets)
        for manifest in manifests:
            described = Manifest.parse(manifest)
            target = listed.pop(release_path(described.model, described.version), None)
            if not documents.describes(target, described, manifest):
                raise MetadataError(f"{role} does not vouch for {described.model}@{described.version} as it is here")
        if listed or new.signed.delegations is not None:
            raise MetadataError(f"{role} vouches for something that was never published here")
        await store.save_document(tx, role, new.signed.version, data, keep=KEPT_VERSIONS)

    async def _refresh_snapshot(
        self,
        tx: AsyncSession,
        root: Root,
        row: tables.Metadata | None,
        versions: Mapping[str, int],
        now: datetime,
    ) -> tuple[bytes, bool]:
        if row is not None:
            old = documents.stored_document(Snapshot, row.data)
            named = {name: meta.version for name, meta in old.signed.meta.items()}
            if named == versions and documents.fresh(root, "snapshot", old, now, documents.SNAPSHOT_DAYS):
                return row.data, False
        new = Metadata(
            Snapshot(
                version=following(row.version if row else 0, await store.floor(tx)),
                expires=documents.expiry(now, documents.SNAPSHOT_DAYS),
                meta={name: MetaFile(version) for name, version in sorted(versions.items())},
            )
        )
        new.sign(self._keys.snapshot)
        data = documents.write(new)
        await store.save_document(tx, "snapshot", new.signed.version, data, keep=KEPT_VERSIONS)
        return data, True

    async def _refresh_timestamp(
        self, tx: AsyncSession, root: Root, row: tables.Metadata | None, snapshot: bytes, now: datetime
    ) -> bool:
        version = documents.stored(Snapshot, snapshot).version
        named = MetaFile(version, len(snapshot), {"sha256": sha256(snapshot)})
        if row is not None:
            old = documents.stored_document(Timestamp, row.data)
            if old.signed.snapshot_meta == named and documents.fresh(
                root, "timestamp", old, now, documents.TIMESTAMP_DAYS
            ):
                return False
        new = Metadata(
            Timestamp(
                version=following(row.version if row else 0, await store.floor(tx)),
                expires=documents.expiry(now, documents.TIMESTAMP_DAYS),
                snapshot_meta=named,
            )
        )
        new.sign(self._keys.timestamp)
        await store.save_document(tx, "timestamp", new.signed.version, documents.write(new), keep=KEPT_VERSIONS)
        return True
