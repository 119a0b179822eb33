"""Set up and change who signs what: `flotilla init`, `key rotate`, `key revoke`, on one key folder and one manager.

    founded(...)      no trust yet -> root 1, targets 1
    changed(...)      other keys -> root N+1, targets and model roles signed anew
    overtaking(...)   the manager was restored -> the same root, targets and model roles above all that devices know

What comes back is the body of `POST /trust`. Nothing here talks to the manager.

I/O: disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleet.releases import ceremony, documents
from fleet.releases.keystore import ROOT_KEYS, Keystore, KeystoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from securesystemslib.signer._key import Key

    from fleet.releases.ceremony import OnlineParts, Trust
    from shared.signing import NaClSigner


def founded(keystore: Keystore, online: OnlineParts, *, threshold: int, now: datetime) -> dict[str, Any]:
    """The first root and targets, signed by the keys in the folder, which are made where they are missing.

    Raises:
        KeystoreError: fewer keys than thresholds.
    """
    keystore.create(release_keys=max(1, threshold))
    roots, releases = keystore.signers("root"), keystore.signers("targets")
    root = ceremony.first_root(
        _public(roots[:ROOT_KEYS]),
        _public(releases),
        snapshot=online.snapshot,
        timestamp=online.timestamp,
        threshold=threshold,
        now=now,
    )
    signed_root = ceremony.sign(root, root.signed.roles["root"], "root", roots)
    targets = ceremony.first_targets(online, now)
    signed_targets = ceremony.sign(targets, root.signed.roles["targets"], "targets", releases)
    return {"root": signed_root.decode(), "targets": signed_targets.decode(), "roles": {}}


def changed(
    keystore: Keystore,
    trust: Trust,
    online: OnlineParts,
    *,
    now: datetime,
    without: str | None = None,
    with_new: str | None = None,
) -> dict[str, Any]:
    """The next root: the same keys but `without` one and `with_new` (names in the folder), and this manager's `online`.

    Raises:
        KeystoreError: a key is not here or not trusted, or too few would be left or can sign.
    """
    keys = {role: _trusted(trust, role) for role in ("root", "targets")}
    if without is not None:
        role, keyid = _role(without), keystore.signer(without).public_key.keyid
        if keyid not in keys[role]:
            raise KeystoreError(f"{without} is not trusted by this fleet", remedy="flotilla key show")
        del keys[role][keyid]
    if with_new is not None:
        added = keystore.signer(with_new).public_key
        keys[_role(with_new)][added.keyid] = added
    releases = list(keys["targets"].values())
    root = ceremony.next_root(
        trust.root,
        root_keys=list(keys["root"].values()),
        release_keys=releases,
        snapshot=online.snapshot,
        timestamp=online.timestamp,
        now=now,
    )
    signed_root = ceremony.sign_next_root(trust.root, root, keystore.signers("root"))
    targets, roles = ceremony.renewed(
        trust, root.signed, release_keys=releases, online=online, signers=keystore.signers("targets"), now=now
    )
    texts = {role: data.decode() for role, data in roles.items()}
    return {"root": signed_root.decode(), "targets": targets.decode(), "roles": texts}


def overtaking(
    keystore: Keystore, trust: Trust, online: OnlineParts, *, also: Sequence[str], now: datetime
) -> dict[str, Any]:
    """Targets and model roles of a restored manager, numbered above whatever was signed after its backup.

    `also` are models that were first published after it: devices refuse documents in which they are missing.

    Raises:
        KeystoreError: too few of the release keys are here. Root keys are not needed.
    """
    releases = list(_trusted(trust, "targets").values())
    targets, roles = ceremony.renewed(
        trust,
        trust.root.signed,
        release_keys=releases,
        online=online,
        signers=keystore.signers("targets"),
        now=now,
        also=also,
    )
    texts = {role: data.decode() for role, data in roles.items()}
    return {"root": documents.write(trust.root).decode(), "targets": targets.decode(), "roles": texts}


def behind(trust: Trust) -> str | None:
    """Why a restored manager's documents must be signed anew; None if there is no need."""
    if any(each.signed.version < trust.floor for each in (trust.targets, *trust.roles.values())):
        return "the manager was restored from a backup"
    return None


def due(trust: Trust, online: OnlineParts, now: datetime) -> str | None:
    """Why this fleet's documents should be signed anew; None if they should not."""
    ours = {"snapshot": online.snapshot.keyid, "timestamp": online.timestamp.keyid}
    director = documents.director_role(online.director)
    delegations = trust.targets.signed.delegations
    if any(trust.root.signed.roles[role].keyids != [keyid] for role, keyid in ours.items()):
        return "the manager has other online keys than the root names"
    if delegations is None or (delegations.roles or {}).get(documents.DIRECTOR) != director:
        return "the manager has another director key than targets names"
    lives = [(trust.root.signed.expires, documents.ROOT_DAYS)]
    lives += [(each.signed.expires, documents.TARGETS_DAYS) for each in (trust.targets, *trust.roles.values())]
    if any((expires - now).days * 2 < days for expires, days in lives):
        return "less than half of a signed document's life is left"
    return None


def _role(name: str) -> str:
    return "root" if name.startswith("root-") else "targets"


def _trusted(trust: Trust, role: str) -> dict[str, Key]:
    root = trust.root.signed
    return {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}


def _public(signers: Sequence[NaClSigner]) -> list[Key]:
    return [signer.public_key for signer in signers]
