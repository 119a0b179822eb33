"""Put a release on the manager's shelf: everything about it is checked before it can be assigned.

    manifest -> version free? -> all chunks here? -> baseline opens with the escrowed key? -> signed role -> stored

I/O: disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError
from tuf.api.metadata import Targets  # type: ignore[attr-defined]  # its stubs list no names

from fleet.releases import documents, leftovers
from fleet.releases.errors import ChunksMissingError, EscrowError, MetadataError, VersionExistsError
from fleet.store import releases as store
from fleet.store.tables import Release
from shared import chunking
from shared.errors import BadInputError
from shared.identifiers import release_path, sha256
from shared.manifest import Manifest
from shared.sketches import Baseline

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.depot import Depot
    from fleet.releases.online_keys import OnlineKeys
    from fleet.releases.repository import Repository


@dataclass(frozen=True, slots=True)
class Submission:
    """A release as its publisher hands it in."""

    manifest: bytes
    role: bytes
    targets: bytes | None
    escrow_key: str
    baseline: bytes


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where releases are taken in."""

    depot: Depot
    repository: Repository
    keys: OnlineKeys

    def examine(self, model: str, submission: Submission) -> tuple[Manifest, Baseline]:
        """The manifest and the baseline, if all chunks are here and the content key opens them. Reads the depot.

        Chunks of the deltas that are offered count as well: a device would ask for them in vain, and fetch it all.

        Raises:
            BadInputError: no manifest, or of another model.
            MetadataError: the baseline is not the one of the manifest, or the role is no document.
            DeltaError: a delta that is offered leads elsewhere.
            ChunksMissingError: upload them first.
            EscrowError: the content key does not fit.
        """
        manifest = Manifest.parse(submission.manifest)
        if manifest.model != model:
            raise BadInputError(f"the manifest is of model {manifest.model!r}, not {model!r}")
        role = documents.read(Targets, submission.role).signed
        entry = role.targets.get(release_path(manifest.model, manifest.version))
        ids = leftovers.of_release(self.depot, manifest, entry)
        if missing := self.depot.missing(sorted(ids)):
            raise ChunksMissingError(f"{len(missing)} of {len(ids)} chunks of {model}@{manifest.version} are missing")
        if self._baseline(manifest, submission.escrow_key) != submission.baseline:
            raise EscrowError("the escrowed content key does not open the release's own baseline")
        return manifest, _parsed(manifest, submission.baseline)

    def _baseline(self, manifest: Manifest, escrow_key: str) -> bytes:
        """The baseline as a device would get it: proof that the escrowed key is the release's content key."""
        content_key = self.keys.open_escrow(escrow_key)
        if len(content_key) != chunking.KEY_BYTES:
            raise EscrowError(f"the content key has {len(content_key)} bytes")
        chunks = manifest.artifacts["baseline"].chunks
        key = chunking.artifact_key(content_key, "baseline")
        plain = bytearray()
        for index, chunk in enumerate(chunks):
            place = {"artifact": "baseline", "index": index, "count": len(chunks)}
            try:
                sealed = self.depot.get(chunk.id) or b""
                plain += chunking.unseal(sealed, key=key, plain_bytes=chunk.plain_bytes, **place)  # type: ignore[arg-type]
            except (chunking.WrongKeyError, chunking.DamagedChunkError) as error:
                raise EscrowError(error.detail) from None
        return bytes(plain)

    async def place(
        self, tx: AsyncSession, submission: Submission, found: tuple[Manifest, Baseline], *, by: str, now: datetime
    ) -> tuple[Release, bool]:
        """Store an examined release; False beside it when exactly this one was stored before.

        Raises:
            VersionExistsError: the version is taken by other content.
            MetadataError: not signed as a device asks, or its counter was used.
        """
        manifest, baseline = found
        digest = sha256(submission.manifest)
        known = await store.find(tx, manifest.model, manifest.version)
        if known is not None and known.manifest_digest == digest:
            return known, False
        if known is not None:
            raise VersionExistsError(
                f"{manifest.model}@{manifest.version} is already published with other content"
                f" (sha256:{known.manifest_digest[:8]}, yours sha256:{digest[:8]})"
            )
        last = await store.last_counter(tx, manifest.model)
        if manifest.counter <= last:
            raise MetadataError(f"release counter {manifest.counter} is not above {last}", remedy="publish again")
        await self.repository.release(
            tx, manifest=submission.manifest, role=submission.role, targets=submission.targets, now=now
        )
        release = Release(
            model=manifest.model,
            version=manifest.version,
            counter=manifest.counter,
            manifest_digest=digest,
            manifest=submission.manifest,
            escrow_key=submission.escrow_key,
            baseline=baseline.model_dump(mode="json"),
            state="released",
            published_by=by,
            published_at=now,
        )
        tx.add(release)
        await tx.flush()
        return release, True


def _parsed(manifest: Manifest, data: bytes) -> Baseline:
    if sha256(data) != manifest.artifacts["baseline"].digest:
        raise MetadataError("the baseline is not the one that the manifest names")
    try:
        baseline = Baseline.model_validate_json(data)
    except ValidationError as error:
        raise BadInputError(f"not a baseline: {str(error).splitlines()[0]}") from None
    if (baseline.model, baseline.version) != (manifest.model, manifest.version):
        raise MetadataError(f"the baseline is of {baseline.model}@{baseline.version}")
    return baseline
