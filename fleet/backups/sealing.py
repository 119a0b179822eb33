"""From a passphrase to a key, and what is sealed by it: argon2id, then XSalsa20-Poly1305, as in the key folder.

The passphrase stays where it is typed: a manager that writes a backup for somebody gets the stretched key only.

I/O: chance.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random

from fleet.backups.errors import BackupDamagedError, PassphraseError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES: Final = SecretBox.KEY_SIZE
MIN_LENGTH: Final = 12
_MAX_MEMORY: Final = 1024**3
_MAX_OPERATIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Lock:
    """A stretched passphrase, and how it was stretched."""

    salt: bytes
    operations: int
    memory_bytes: int
    key: bytes = field(repr=False)

    def terms(self) -> dict[str, Any]:
        """For the head of the backup: all but the key."""
        salt = base64.b64encode(self.salt).decode()
        return {"kdf": "argon2id", "salt": salt, "operations": self.operations, "memory_bytes": self.memory_bytes}

    def seal(self, files: Mapping[str, bytes]) -> bytes:
        """Files by their path, sealed."""
        plain = json.dumps({name: base64.b64encode(data).decode() for name, data in sorted(files.items())})
        return bytes(SecretBox(self.key).encrypt(plain.encode()))

    def open(self, sealed: bytes) -> dict[str, bytes]:
        """Inverse of `seal`.

        Raises:
            PassphraseError: sealed under another passphrase, or changed since.
        """
        try:
            found = json.loads(SecretBox(self.key).decrypt(sealed))
            return {str(name): base64.b64decode(data) for name, data in found.items()}
        except (CryptoError, ValueError):
            raise PassphraseError("the passphrase does not open this backup") from None


def new_lock(passphrase: str) -> Lock:
    """A lock of its own for one backup.

    Raises:
        PassphraseError: too short to be worth the name.
    """
    if len(passphrase) < MIN_LENGTH:
        raise PassphraseError(
            f"a passphrase of {len(passphrase)} characters; {MIN_LENGTH} are the least",
            remedy="choose a longer one: several words, or `openssl rand -base64 24`",
        )
    return _stretched(passphrase, random(argon2id.SALTBYTES), argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)


def lock_of(head: Mapping[str, Any], passphrase: str) -> Lock:
    """The lock of the backup with this head.

    Raises:
        BackupDamagedError: the head does not say how the passphrase was stretched.
    """
    try:
        salt = base64.b64decode(head["salt"], validate=True)
        operations, memory = int(head["operations"]), int(head["memory_bytes"])
    except (KeyError, ValueError, TypeError, binascii.Error):
        raise BackupDamagedError("the head of the backup is not readable") from None
    fair = len(salt) == argon2id.SALTBYTES and 0 < operations <= _MAX_OPERATIONS and 8192 <= memory <= _MAX_MEMORY
    if head.get("kdf") != "argon2id" or not fair:
        raise BackupDamagedError("the head of the backup asks for a strange way to stretch the passphrase")
    return _stretched(passphrase, salt, operations, memory)


def _stretched(passphrase: str, salt: bytes, operations: int, memory_bytes: int) -> Lock:
    key = argon2id.kdf(KEY_BYTES, passphrase.encode(), salt, operations, memory_bytes)
    return Lock(salt, operations, memory_bytes, key)
