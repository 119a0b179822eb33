"""What people sign: the first trust, each release, and changes of keys.

Takes signed documents and signers, gives signed documents; nothing is fetched or stored here.

    first_root, first_targets                  `flotilla init`
    with_release                               `flotilla model publish`
    next_root, renewed                         `flotilla key rotate | revoke`

I/O: chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api._payload import Root, Targets
from tuf.api.metadata import Metadata

from fleet.releases import documents
from fleet.releases.documents import DIRECTOR, model_of, role_of
from fleet.releases.errors import MetadataError
from fleet.releases.floors import following
from fleet.releases.keystore import ROOT_THRESHOLD, KeystoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from securesystemslib.signer._key import Key
    from tuf.api._payload import Role

    from shared.delta.offer import Offer
    from shared.manifest import Manifest
    from shared.signing import NaClSigner


@dataclass(frozen=True, slots=True)
class Trust:
    """The verified documents of one fleet."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    roles: Mapping[str, Metadata[Targets]]  # model roles by name
    floor: int = 0  # no number below this, since the manager was restored from a backup


@dataclass(frozen=True, slots=True)
class OnlineParts:
    """The manager's public keys."""

    snapshot: Key
    timestamp: Key
    director: Key


def sign(document: Metadata[documents.R], role: Role, name: str, signers: Iterable[NaClSigner]) -> bytes:
    """The document, signed by all of `signers` that the role knows.

    Raises:
        KeystoreError: they are fewer than the role's threshold.
    """
    able = [signer for signer in signers if signer.public_key.keyid in role.keyids]
    if len(able) < role.threshold:
        raise KeystoreError(
            f"{name} needs {role.threshold} signatures; this folder holds {len(able)} of its {len(role.keyids)} keys"
        )
    document.signatures.clear()
    for signer in able:
        document.sign(signer, append=True)
    return documents.write(document)


def first_root(
    root_keys: Sequence[Key],
    release_keys: Sequence[Key],
    *,
    snapshot: Key,
    timestamp: Key,
    threshold: int,
    now: datetime,
) -> Metadata[Root]:
    """An unsigned root, version 1. `threshold` release keys must agree on top-level targets."""
    root = Root(version=1, expires=documents.expiry(now, documents.ROOT_DAYS), consistent_snapshot=True)
    _give(root, "root", root_keys, ROOT_THRESHOLD)
    _give(root, "targets", release_keys, threshold)
    _give(root, "snapshot", [snapshot], 1)
    _give(root, "timestamp", [timestamp], 1)
    return Metadata(root)


def first_targets(online: OnlineParts, now: datetime) -> Metadata[Targets]:
    """Unsigned top-level targets, version 1, which delegate assignments only."""
    return Metadata(
        documents.new_targets([online.director], [documents.director_role(online.director)], version=1, now=now)
    )


def next_root(
    old: Metadata[Root],
    *,
    root_keys: Sequence[Key],
    release_keys: Sequence[Key],
    snapshot: Key,
    timestamp: Key,
    now: datetime,
) -> Metadata[Root]:
    """An unsigned successor with these keys; thresholds stay, unless too few keys are left.

    Raises:
        KeystoreError: fewer keys than a threshold asks for.
    """
    roles = old.signed.roles
    for name, keys in (("root", root_keys), ("targets", release_keys)):
        if len(keys) < roles[name].threshold:
            raise KeystoreError(
                f"{name} needs {roles[name].threshold} keys and would keep {len(keys)}",
                remedy="make another one first: flotilla key generate",
            )
    threshold = roles["targets"].threshold
    new = first_root(root_keys, release_keys, snapshot=snapshot, timestamp=timestamp, threshold=threshold, now=now)
    new.signed.roles["root"].threshold = roles["root"].threshold
    new.signed.version = old.signed.version + 1
    return new


def sign_next_root(old: Metadata[Root], new: Metadata[Root], signers: Sequence[NaClSigner]) -> bytes:
    """The successor, signed so that holders of the old root and the new one accept it.

    Raises:
        KeystoreError: too few of the old keys, or of the new ones.
    """
    sign(new, old.signed.roles["root"], "the old root", signers)
    old_signatures = dict(new.signatures)
    sign(new, new.signed.roles["root"], "the new root", signers)
    new.signatures.update(old_signatures)
    return documents.write(new)


def renewed(
    trust: Trust,
    root: Root,
    *,
    release_keys: Sequence[Key],
    online: OnlineParts,
    signers: Sequence[NaClSigner],
    now: datetime,
    also: Sequence[str] = (),
) -> tuple[bytes, dict[str, bytes]]:
    """Targets and every model role, signed anew by the keys that `root` now trusts; and roles without a release for
    models `also`, of which devices have heard and this manager has not.

    Raises:
        KeystoreError: too few of those keys are here.
    """
    old = _delegated(trust.targets.signed)
    roles = [
        documents.model_role(model_of(name), release_keys, min(role.threshold, len(release_keys)))
        for name, role in old.items()
        if name != DIRECTOR
    ]
    threshold = root.roles["targets"].threshold
    roles += [documents.model_role(model, release_keys, threshold) for model in also if role_of(model) not in old]
    top = documents.new_targets(
        [online.director, *release_keys],
        [documents.director_role(online.director), *roles],
        version=following(trust.targets.signed.version, trust.floor),
        now=now,
    )
    signed: dict[str, bytes] = {}
    for role in roles:
        document = _copy(trust.roles[role.name]) if role.name in trust.roles else Metadata(Targets())
        _advance(document, now, trust.floor)
        signed[role.name] = sign(document, role, role.name, signers)
    return sign(Metadata(top), root.roles["targets"], "targets", signers), signed


def with_release(
    trust: Trust,
    manifest: Manifest,
    data: bytes,
    *,
    signers: Sequence[NaClSigner],
    threshold: int | None,
    now: datetime,
    deltas: Sequence[Offer] = (),
) -> tuple[bytes, bytes | None]:
    """The model role that also vouches for the manifest `data`; targets as well when the model is new.

    A new model family takes the top-level targets' threshold unless another is asked for.

    Raises:
        KeystoreError: too few of the keys are here.
    """
    name = role_of(manifest.model)
    target = documents.release_target(manifest, data, deltas)
    if name in trust.roles:
        document = _copy(trust.roles[name])
        _advance(document, now, trust.floor)
        document.signed.targets[target.path] = target
        return sign(document, _delegated(trust.targets.signed)[name], name, signers), None
    keys = [signer.public_key for signer in signers]
    wanted = threshold or trust.root.signed.roles["targets"].threshold
    role = documents.model_role(manifest.model, keys, wanted)
    ends = documents.expiry(now, documents.TARGETS_DAYS)
    new = Targets(version=following(0, trust.floor), expires=ends, targets={target.path: target})
    top = _copy(trust.targets)
    _advance(top, now, trust.floor)
    delegations = top.signed.delegations
    if delegations is None or delegations.roles is None:
        raise MetadataError("top-level targets delegates nothing")
    delegations.keys.update({key.keyid: key for key in keys})
    delegations.roles[name] = role
    return (
        sign(Metadata(new), role, name, signers),
        sign(top, trust.root.signed.roles["targets"], "targets", signers),
    )


def _give(root: Root, role: str, keys: Sequence[Key], threshold: int) -> None:
    for key in keys:
        root.add_key(key, role)
    root.roles[role].threshold = threshold


def _delegated(targets: Targets) -> Mapping[str, Role]:
    return (targets.delegations.roles if targets.delegations else None) or {}


def _copy(document: Metadata[Targets]) -> Metadata[Targets]:
    return documents.stored_document(Targets, documents.write(document))


def _advance(document: Metadata[Targets], now: datetime, floor: int) -> None:
    document.signed.version = following(document.signed.version, floor)
    document.signed.expires = documents.expiry(now, documents.TARGETS_DAYS)
