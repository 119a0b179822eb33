"""Is a published version what its signatures say? The same questions that a device asks.

I/O: chance.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fleet.releases import documents
from fleet.releases.errors import MetadataError
from shared.identifiers import release_path, sha256
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.releases.ceremony import Trust


def vouched(trust: Trust, found: Mapping[str, Any], file: bytes | None) -> dict[str, Any]:
    """Who vouches for a version as `GET /models/{name}/versions/{version}` told it.

    Raises:
        MetadataError: the signed role does not list these manifest bytes, or `file` is not the model in it.
    """
    name, version = found["model"], found["version"]
    data = Manifest.parse(json.dumps(found["manifest"]).encode()).to_bytes()
    manifest = Manifest.parse(data)
    role = trust.roles.get(documents.role_of(name))
    target = role.signed.targets.get(release_path(name, version)) if role else None
    if role is None or not documents.describes(target, manifest, data):
        raise MetadataError(f"no release key vouches for {name}@{version} as this manager shows it")
    if file is not None and sha256(file) != manifest.artifacts["model"].digest:
        raise MetadataError(f"the file is not the one in {name}@{version}", remedy="compare its SHA-256")
    delegations = trust.targets.signed.delegations
    delegated = (delegations.roles or {})[documents.role_of(name)] if delegations else None
    return {
        "model": name,
        "version": version,
        "manifest_digest": sha256(data),
        "model_digest": manifest.artifacts["model"].digest,
        "signatures": len(role.signatures),
        "keys": len(delegated.keyids) if delegated else 0,
        "threshold": delegated.threshold if delegated else 0,
        "verified": True,
    }
