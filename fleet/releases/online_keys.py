"""The manager's own keys: freshness, assignments, escrow. None of them can make a release.

I/O: disk, chance.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacl.public import PrivateKey

from fleet.releases.errors import EscrowError
from shared.durable import make_folder, replace_file
from shared.errors import BrokenError
from shared.signing import NaClSigner, SealError, seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

_SEED_BYTES = 32


class KeyFileError(BrokenError):
    """A key file of the manager is damaged."""

    code = "E_KEY_FILE"
    default_remedy = "flotilla backup restore FILE"


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """Signers of the roles that run without people, and the box that content keys are escrowed to."""

    snapshot: NaClSigner
    timestamp: NaClSigner
    director: NaClSigner
    escrow: PrivateKey

    @classmethod
    def open(cls, folder: Path) -> OnlineKeys:
        """The keys in `folder`; those that are not there yet are made, durably, for the owner's eyes only.

        Raises:
            KeyFileError: a file is not a key.
        """
        make_folder(folder)
        seeds = {name: _seed(folder / f"{name}.key") for name in ("snapshot", "timestamp", "director", "escrow")}
        signers = {name: NaClSigner.from_seed(seed) for name, seed in seeds.items() if name != "escrow"}
        return cls(**signers, escrow=PrivateKey(seeds["escrow"]))

    def public(self) -> dict[str, dict[str, Any]]:
        """Role -> public key in TUF form with its id, for the people who sign the root."""
        return {
            name: {"keyid": signer.public_key.keyid, **signer.public_key.to_dict()}
            for name, signer in (
                ("snapshot", self.snapshot),
                ("timestamp", self.timestamp),
                ("director", self.director),
            )
        }

    def escrow_public(self) -> str:
        """The key that publishers seal content keys to, base64."""
        return base64.b64encode(bytes(self.escrow.public_key)).decode()

    def open_escrow(self, sealed: str) -> bytes:
        """The content key that a publisher sealed for this manager.

        Raises:
            EscrowError: sealed for another manager, or damaged.
        """
        try:
            return unseal(sealed, bytes(self.escrow))
        except SealError:
            raise EscrowError("the content key was not sealed for this manager's escrow key") from None

    def reseal(self, sealed: str, box_key: bytes) -> str:
        """The escrowed content key, sealed for the device that owns `box_key`.

        Raises:
            EscrowError: sealed for another manager, or damaged.
        """
        return seal(self.open_escrow(sealed), box_key)


def _seed(path: Path) -> bytes:
    if not path.exists():
        replace_file(path, NaClSigner.generate().seed)
    seed = path.read_bytes()
    if len(seed) != _SEED_BYTES:
        raise KeyFileError(f"{path.name} holds {len(seed)} bytes instead of {_SEED_BYTES}")
    return seed
