"""A root document in a file, carried from one key holder to the next until enough have signed.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api._payload import Root

from fleet.releases import ceremony, documents
from fleet.releases.keystore import Keystore, KeystoreError
from shared.durable import replace_file

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from securesystemslib.signer._key import Key
    from tuf.api.metadata import Metadata

    from fleet.releases.ceremony import OnlineParts, Trust


def create(
    keystore: Keystore, file: Path, *, without: str | None, with_new: str | None, now: datetime
) -> dict[str, Any]:
    """Write the successor of the pinned root, unsigned; what it says.

    Raises:
        KeystoreError: nothing is pinned, a key is not here, or too few would be left.
    """
    old = _pinned(keystore)
    keys = {role: {keyid: old.signed.keys[keyid] for keyid in old.signed.roles[role].keyids} for role in _PEOPLE}
    if without is not None:
        keys[_role(without)].pop(keystore.signer(without).public_key.keyid, None)
    if with_new is not None:
        added = keystore.signer(with_new).public_key
        keys[_role(with_new)][added.keyid] = added
    new = ceremony.next_root(
        old,
        root_keys=list(keys["root"].values()),
        release_keys=list(keys["targets"].values()),
        snapshot=_key(old.signed, "snapshot"),
        timestamp=_key(old.signed, "timestamp"),
        now=now,
    )
    replace_file(file, documents.write(new), mode=0o644)
    return describe(keystore, file)


def sign(keystore: Keystore, file: Path) -> dict[str, Any]:
    """Add this folder's signatures to the file; what it says now.

    Raises:
        KeystoreError: this folder has no root key that the old root or the new one knows.
    """
    new = documents.read(Root, file.read_bytes())
    known = set(new.signed.roles["root"].keyids)
    if keystore.pinned_root() is not None:
        known |= set(_pinned(keystore).signed.roles["root"].keyids)
    able = [signer for signer in keystore.signers("root") if signer.public_key.keyid in known]
    if not able:
        raise KeystoreError(f"no root key in {keystore.folder} belongs to this root")
    for signer in able:
        new.sign(signer, append=True)
    replace_file(file, documents.write(new), mode=0o644)
    return describe(keystore, file)


def body(keystore: Keystore, file: Path, trust: Trust, online: OnlineParts, *, now: datetime) -> dict[str, Any]:
    """The body of `POST /trust` for a root file that enough people have signed.

    Raises:
        MetadataError: too few signatures.
        KeystoreError: too few release keys are here to sign anew what hangs on it.
    """
    new = documents.read(Root, file.read_bytes())
    documents.verify(trust.root.signed, "root", new, now)
    documents.verify(new.signed, "root", new, now)
    releases = [new.signed.keys[keyid] for keyid in new.signed.roles["targets"].keyids]
    targets, roles = ceremony.renewed(
        trust, new.signed, release_keys=releases, online=online, signers=keystore.signers("targets"), now=now
    )
    texts = {role: data.decode() for role, data in roles.items()}
    return {"root": documents.write(new).decode(), "targets": targets.decode(), "roles": texts}


def describe(keystore: Keystore, file: Path | None) -> dict[str, Any]:
    """What a root file, or the pinned root, says.

    Raises:
        KeystoreError: no file is named and nothing is pinned.
    """
    found = documents.read(Root, file.read_bytes()) if file is not None else _pinned(keystore)
    roles = {
        name: {"threshold": role.threshold, "keys": list(role.keyids)} for name, role in found.signed.roles.items()
    }
    return {
        "version": found.signed.version,
        "expires": f"{found.signed.expires:%Y-%m-%dT%H:%M:%SZ}",
        "roles": roles,
        "signatures": len(found.signatures),
        "signed_by": sorted(found.signatures),
    }


def text(document: dict[str, Any]) -> str:
    """The form for people."""
    lines = [f"root {document['version']}, expires {document['expires']}, {document['signatures']} signatures"]
    for name, role in document["roles"].items():
        lines.append(f"  {name:<10} {role['threshold']} of {len(role['keys'])}")
        lines += [f"    {'✔' if keyid in document['signed_by'] else ' '} {keyid}" for keyid in role["keys"]]
    return "\n".join(lines)


_PEOPLE = ("root", "targets")


def _role(name: str) -> str:
    return "root" if name.startswith("root-") else "targets"


def _key(root: Root, role: str) -> Key:
    return root.keys[root.roles[role].keyids[0]]


def _pinned(keystore: Keystore) -> Metadata[Root]:
    data = keystore.pinned_root()
    if data is None:
        raise KeystoreError(f"{keystore.folder} has no root.json yet", remedy="flotilla init")
    return documents.stored_document(Root, data)
