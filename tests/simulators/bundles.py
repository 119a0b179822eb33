"""Bundles made of what the simulated release repository serves."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared import bundle as layout
from shared.bundle import Bundle, Packed
from shared.signing import NaClSigner
from tests.simulators.release_repository import Release, ReleaseRepository


def make_bundle(
    folder: Path,
    repository: ReleaseRepository,
    releases: list[Release],
    *,
    box_key: bytes,
    device: str = "cam-1",
    days: float = 30,
    made: datetime | None = None,
    signer: NaClSigner | None = None,
    bundled: list[int] | None = None,
) -> Path:
    """A folder as `flotilla bundle export` writes it."""
    created = made or datetime.now(UTC)
    numbers = []
    files: dict[str, bytes] = {}
    for release in releases:
        text = repository.assign(device, box_key, release, expires_days=60)
        numbers.append(repository.assigned[device])
        files[layout.assignment_path(device, numbers[-1])] = text.encode()
        files[layout.manifest_path(release.digest)] = release.data
        files |= {layout.chunk_path(name): data for name, data in release.chunks.items()}
    for path, data in repository.files.items():
        if path.startswith("/metadata/"):
            files[path[1:]] = data
    packed = tuple(Packed(model=it.manifest.model, version=it.manifest.version, manifest=it.digest) for it in releases)
    described = Bundle(
        created=created,
        expires=created + timedelta(days=days),
        releases=packed,
        assignments={device: tuple(bundled or numbers)},
    ).to_bytes()
    signed = (signer or repository.director_signer).sign(layout.signed_part(described))
    files[layout.SIGNATURE] = json.dumps({"keyid": signed.keyid, "sig": signed.signature}).encode()
    files[layout.DESCRIPTION] = described
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
