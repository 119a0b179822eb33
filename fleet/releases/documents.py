"""The signed documents of a fleet: how they are built, written, read and checked.

    root 2-of-3 --> targets (release keys) --> model-<name> (release keys): <name>/<version>/manifest.json
               \\                           \\-> director (online): assign/<device>
                \\-> snapshot, timestamp (online)

Signatures are checked by python-tuf; the checks here are about what a Flotilla fleet means by them.

I/O: chance.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from securesystemslib.exceptions import Error as SignatureLibraryError
from securesystemslib.signer._key import Key
from tuf.api._payload import (  # the public `tuf.api.metadata` has the same names, but not for type checkers
    DelegatedRole,
    Delegations,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from fleet.releases.errors import MetadataError
from shared import signing
from shared.delta.offer import offers
from shared.errors import BadInputError
from shared.identifiers import release_path, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from shared.delta.offer import Offer
    from shared.manifest import Manifest

signing.install()

R = TypeVar("R", Root, Targets, Snapshot, Timestamp)

ROOT_DAYS: Final = 730
TARGETS_DAYS: Final = 365
SNAPSHOT_DAYS: Final = 7
TIMESTAMP_DAYS: Final = 1
ASSIGNMENT_DAYS: Final = 30
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
DIRECTOR: Final = "director"
_MODEL: Final = "model-"
_SERIALIZER: Final = JSONSerializer(compact=True)


def role_of(model: str) -> str:
    """The TUF role that vouches for a model family."""
    return f"{_MODEL}{model}"


def model_of(role: str) -> str:
    """Inverse of `role_of`."""
    return role.removeprefix(_MODEL)


def expiry(now: datetime, days: int) -> datetime:
    """`days` from now, in whole seconds as TUF writes them."""
    return (now + timedelta(days=days)).replace(microsecond=0)


def write(document: Metadata[R]) -> bytes:
    """The bytes to store and to serve."""
    return document.to_bytes(_SERIALIZER)


def read(kind: type[R], data: bytes) -> Metadata[R]:
    """The document in `data`, its form checked, its signatures not yet.

    Raises:
        MetadataError: not such a document.
    """
    try:
        signing.strict_json(data, limit_bytes=MAX_DOCUMENT_BYTES)
        found: Metadata[R] = Metadata.from_bytes(data)
    except (BadInputError, DeserializationError, RecursionError) as error:
        raise MetadataError(f"not a signed {kind.type} document: {error}") from None
    if not isinstance(found.signed, kind):
        raise MetadataError(f"a {found.signed.type} document where {kind.type} is expected")
    return found


def stored_document(kind: type[R], data: bytes) -> Metadata[R]:
    """The document in `data`, which was checked before it was stored."""
    found: Metadata[R] = Metadata.from_bytes(data)
    if not isinstance(found.signed, kind):
        raise TypeError(f"{found.signed.type} stored as {kind.type}")
    return found


def stored(kind: type[R], data: bytes) -> R:
    """What the stored document `data` says."""
    return stored_document(kind, data).signed


def version_of(data: bytes) -> int:
    """The version that a stored document names."""
    return int(json.loads(data)["signed"]["version"])


def fresh(root: Root, role: str, document: Metadata[R], now: datetime, days: int) -> bool:
    """True when `root` still trusts the document and more than half of its life is left."""
    try:
        verify(root, role, document, now)
    except MetadataError:
        return False
    return document.signed.expires - now > timedelta(days=days) / 2


def verify(by: Root | Targets, role: str, document: Metadata[R], now: datetime | None) -> None:
    """Nothing, if enough keys that `by` trusts for `role` signed the document and it has not expired.

    Those who are about to sign its successor do not care for its expiry: `now` is None.

    Raises:
        MetadataError: it is not so.
    """
    try:
        by.verify_delegate(role, document.signed_bytes, document.signatures)
    except (RepositoryError, SignatureLibraryError, ValueError) as error:
        raise MetadataError(f"{role}: {error}") from None
    if now is not None and document.signed.is_expired(now):
        raise MetadataError(f"{role} expired on {document.signed.expires:%Y-%m-%d}")


def honest_keys(keys: dict[str, Key]) -> None:
    """Nothing, if every key is called by its own digest, so that no key can count twice.

    Raises:
        MetadataError: one is not.
    """
    for keyid, key in keys.items():
        if key.keytype != "ed25519" or keyid != sha256(bytes.fromhex(key.keyval["public"])):
            raise MetadataError(f"key {keyid[:12]} is not an Ed25519 key called by its digest")


def director_role(director: Key) -> DelegatedRole:
    """The delegation to the manager's assignments."""
    return DelegatedRole(DIRECTOR, [director.keyid], 1, terminating=True, paths=["assign/*"])


def model_role(model: str, keys: Sequence[Key], threshold: int) -> DelegatedRole:
    """The delegation to a model family."""
    keyids = [key.keyid for key in keys]
    return DelegatedRole(role_of(model), keyids, threshold, terminating=True, paths=[f"{model}/*/manifest.json"])


def new_targets(keys: Iterable[Key], roles: Iterable[DelegatedRole], *, version: int, now: datetime) -> Targets:
    """The top of the release plane: no targets of its own, one delegated role for each family."""
    delegations = Delegations({key.keyid: key for key in keys}, {role.name: role for role in roles})
    return Targets(version=version, expires=expiry(now, TARGETS_DAYS), targets={}, delegations=delegations)


def release_target(manifest: Manifest, data: bytes, deltas: Sequence[Offer] = ()) -> TargetFile:
    """The entry that vouches for a release, and says what deltas lead to it."""
    custom: dict[str, Any] = {"counter": manifest.counter, "minimum_counter": manifest.minimum_counter}
    if deltas:
        custom["deltas"] = [offer.model_dump() for offer in deltas]
    path = release_path(manifest.model, manifest.version)
    return TargetFile(len(data), {"sha256": sha256(data)}, path, {"custom": custom})


def describes(target: TargetFile | None, manifest: Manifest, data: bytes) -> bool:
    """True when the entry is exactly the one for these manifest bytes; deltas may be offered beside."""
    if target is None:
        return False
    known = offers(target.unrecognized_fields.get("custom"))
    return bool(target.to_dict() == release_target(manifest, data, known).to_dict())


def public_key(described: dict[str, Any]) -> Key:
    """The key in `GET /trust`'s `online_keys`.

    Raises:
        MetadataError: not a key.
    """
    try:
        rest = {name: value for name, value in described.items() if name != "keyid"}
        key = Key.from_dict(str(described["keyid"]), rest)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise MetadataError("the manager named something that is not a public key") from None
    honest_keys({key.keyid: key})
    return key
