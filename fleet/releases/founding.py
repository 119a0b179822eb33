"""Set a manager up for releases, or renew what grows old: `flotilla init`, and the same from Python.

I/O: network, disk, chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.releases import documents, pinning, rotation
from fleet.releases.delta.cellar import Cellar
from shared.identifiers import checked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fleet.releases.keystore import Keystore
    from fleet.rest.release_door import ReleaseDoor


@dataclass(frozen=True, slots=True)
class SetUp:
    """What came of it: `described` is the manager's trust now, `new` its first root, `why` the reason of a renewal."""

    described: Mapping[str, Any]
    new: bool
    why: str | None


def set_up(keys: Keystore, door: ReleaseDoor, *, threshold: int, now: datetime) -> SetUp:
    """Keys and root of trust, whatever of them is missing or due. Harmless to repeat.

    Raises:
        KeystoreError: the manager trusts other keys than those of this folder.
    """
    described = door.trust()
    online = pinning.online_parts(described)
    if not described["initialised"]:
        body = rotation.founded(keys, online, threshold=threshold, now=now)
        return SetUp(give(keys, door, body), new=True, why=None)
    trust = pinning.verified(keys, described, door.root)
    why = rotation.due(trust, online, now)
    if why is not None:
        described = give(keys, door, rotation.changed(keys, trust, online, now=now))
    elif (why := rotation.behind(trust)) is not None:
        heard = [checked("model name", name) for name in {*Cellar(keys.folder).models(), *described.get("served", ())}]
        described = give(keys, door, rotation.overtaking(keys, trust, online, also=sorted(heard), now=now))
    return SetUp(described, new=False, why=why)


def give(keys: Keystore, door: ReleaseDoor, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Hand a signed root to the manager, then pin it here."""
    answer = door.give_trust(body)
    keys.pin_root(body["root"].encode())
    return answer


def summary(keys: Keystore, described: Mapping[str, Any]) -> dict[str, Any]:
    """Keys, and what the manager trusts."""
    root = described["root"]
    return {
        "keys": str(keys.folder),
        "names": keys.names(),
        "initialised": bool(described["initialised"]),
        "root_version": documents.version_of(root.encode()) if root else None,
        "models": sorted(documents.model_of(role) for role in described["roles"]),
    }
