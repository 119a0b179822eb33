"""Believe a manager's documents only as far as this folder's keys reach.

Whoever signs must know what is signed: a manager that was taken over could otherwise hand a publisher a widened
delegation to sign. So every document is verified from the root that the key folder has pinned.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api._payload import Root, Targets

from fleet.releases import documents
from fleet.releases.ceremony import OnlineParts, Trust
from fleet.releases.errors import MetadataError, NotInitialisedError
from fleet.releases.keystore import Keystore, KeystoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tuf.api.metadata import Metadata


def verified(keystore: Keystore, described: Mapping[str, Any], fetch_root: Callable[[int], bytes]) -> Trust:
    """What `GET /trust` answered, verified; the newest root is pinned.

    Raises:
        NotInitialisedError: the manager has no trust yet.
        KeystoreError: the manager trusts other keys than this folder's.
        MetadataError: the manager serves what its own root does not sign.
    """
    if described.get("root") is None or described.get("targets") is None:
        raise NotInitialisedError("this manager has no root of trust yet")
    root = _root(keystore, described["root"].encode(), fetch_root)
    targets = documents.read(Targets, described["targets"].encode())
    documents.verify(root.signed, "targets", targets, None)
    roles = {}
    for name, text in described["roles"].items():
        roles[name] = documents.read(Targets, text.encode())
        documents.verify(targets.signed, name, roles[name], None)
    keystore.pin_root(described["root"].encode())
    return Trust(root, targets, roles, int(described.get("floor", 0)))


def _root(keystore: Keystore, data: bytes, fetch_root: Callable[[int], bytes]) -> Metadata[Root]:
    served = documents.read(Root, data)
    documents.verify(served.signed, "root", served, None)
    pinned_data = keystore.pinned_root()
    if pinned_data is None:
        ours = {signer.public_key.keyid for role in ("root", "targets") for signer in keystore.signers(role)}
        if not ours & {keyid for role in ("root", "targets") for keyid in served.signed.roles[role].keyids}:
            raise KeystoreError("this manager trusts other keys than those in this folder")
        return served
    pinned = documents.stored_document(Root, pinned_data)
    if served.signed.version < pinned.signed.version:
        raise MetadataError(
            f"the manager serves root {served.signed.version}; this folder has seen {pinned.signed.version}",
            remedy="restore a backup that was made after the keys were last changed: flotilla backup restore FILE",
        )
    for version in range(pinned.signed.version + 1, served.signed.version + 1):
        following = documents.read(Root, fetch_root(version))
        documents.verify(pinned.signed, "root", following, None)
        pinned = following
    if documents.write(pinned) != documents.write(served):
        raise KeystoreError("this manager has another root of trust than the one this folder has seen")
    return served


def online_parts(described: Mapping[str, Any]) -> OnlineParts:
    """The manager's public keys in what `GET /trust` answered.

    Raises:
        MetadataError: they are not keys.
    """
    keys = described["online_keys"]
    return OnlineParts(*(documents.public_key(keys[name]) for name in ("snapshot", "timestamp", "director")))
