"""What people and devices carry to show who they are: made here, and kept only as keyed hashes.

All secrets are 256 random bits, so a fast keyed hash is enough: there is nothing to guess.

I/O: disk, chance.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Final, Literal

from shared.durable import make_folder, replace_file
from shared.errors import BrokenError

_PREFIX: Final = {"claim": "fcl_", "token": "flt_", "key": "fdk_", "session": "fse_"}
_BYTES: Final = 32


class PepperError(BrokenError):
    """The secret under which tokens and keys are hashed cannot be used."""

    code = "E_PEPPER"
    default_remedy = (
        "restore keys/pepper in the data folder from a backup; without it every token and device key is lost"
    )


class Pepper:
    """The manager's secret key of all these hashes: a copy of the database alone opens nothing."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _BYTES:
            raise ValueError("a pepper has 32 bytes")
        self._key = key

    def digest(self, secret: str) -> str:
        """The keyed BLAKE2b-256 of `secret`, 64 hexadecimal characters."""
        return hashlib.blake2b(secret.encode(), digest_size=32, key=self._key).hexdigest()

    def fits(self, secret: str, digest: str) -> bool:
        """True when `digest` is that of `secret`; takes the same time either way."""
        return secrets.compare_digest(self.digest(secret), digest)

    def derived(self, purpose: str) -> bytes:
        """32 secret bytes for `purpose`, the same each time; nothing leads from them to the pepper or to digests."""
        return hashlib.blake2b(purpose.encode(), digest_size=32, key=self._key, person=b"flotilla/derived").digest()

    @classmethod
    def open(cls, path: Path) -> "Pepper":
        """The pepper in `path`; made there at the first call.

        Raises:
            PepperError: the file has another length.
        """
        if not path.exists():
            make_folder(path.parent)
            replace_file(path, secrets.token_bytes(_BYTES))
        key = path.read_bytes()
        if len(key) != _BYTES:
            raise PepperError(f"{path} has {len(key)} bytes instead of {_BYTES}")
        return cls(key)


def new_secret(kind: Literal["claim", "token", "key", "session"], length: int = _BYTES) -> str:
    """`length` random bytes as text whose first characters tell what it is."""
    return _PREFIX[kind] + secrets.token_urlsafe(length)


def new_id(prefix: str) -> str:
    """A short random id such as `to-3fk2m9qa`: unique among thousands, never a secret."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return f"{prefix}-" + "".join(secrets.choice(alphabet) for _ in range(8))
