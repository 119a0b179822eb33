"""The folder that holds people's signing keys: root and release. It never meets the manager.

    root-1.key root-2.key root-3.key     who holds all other roles; two of them decide
    release-1.key [release-2.key ...]    which releases are good
    root.json                            the newest root that this folder has verified

The folder is 0700, each file 0600: 32 secret bytes, or the same under a passphrase (argon2id, XSalsa20-Poly1305).

I/O: disk, chance.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random

from shared.durable import make_folder, replace_file
from shared.errors import BadInputError, RefusedError
from shared.signing import NaClSigner

ROOT_KEYS: Final = 3
ROOT_THRESHOLD: Final = 2
NAME: Final = re.compile(r"(root|release)-[1-9][0-9]{0,3}")
_SEED_BYTES: Final = 32
_SEALED: Final = b"flotilla-key/1\n"  # then salt, then SecretBox


def default_folder() -> Path:
    """FLOTILLA_KEYS, or `~/.config/flotilla/keys` (below XDG_CONFIG_HOME where that is set)."""
    if named := os.environ.get("FLOTILLA_KEYS"):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "flotilla" / "keys"


class KeystoreError(RefusedError):
    """The folder does not hold the keys that this needs."""

    code = "E_KEYS"
    default_remedy = "name the right folder with --keys DIR or FLOTILLA_KEYS"


class Keystore:
    """Keys in one folder. With a `passphrase`, new keys are written under it and old ones opened with it."""

    def __init__(self, folder: Path, *, passphrase: str | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase.encode() if passphrase else None

    def create(self, *, release_keys: int = 1) -> list[str]:
        """Make the root keys and `release_keys` release keys that are not there yet; the names of the new ones."""
        wanted = [f"root-{number}" for number in range(1, ROOT_KEYS + 1)]
        wanted += [f"release-{number}" for number in range(1, release_keys + 1)]
        new = [name for name in wanted if not self._path(name).exists()]
        for name in new:
            self.generate(name)
        return new

    def generate(self, name: str) -> NaClSigner:
        """A new key called `name` (`root-N` or `release-N`).

        Raises:
            KeystoreError: there is one already.
            BadInputError: not such a name.
        """
        path = self._path(name)
        if path.exists():
            raise KeystoreError(f"{path} exists", remedy="choose another name; keys are never overwritten")
        make_folder(self.folder)
        signer = NaClSigner.generate()
        replace_file(path, self._seal(signer.seed))
        return signer

    def next_name(self, kind: str) -> str:
        """The first free name of a kind (`root`, `release`)."""
        numbers = [int(name.rpartition("-")[2]) for name in self.names() if name.startswith(f"{kind}-")]
        return f"{kind}-{max(numbers, default=0) + 1}"

    def names(self) -> list[str]:
        """Every key here, root first, in the order of their numbers."""
        found = [path.stem for path in self.folder.glob("*.key") if NAME.fullmatch(path.stem)]
        return sorted(found, key=lambda name: (name.startswith("release"), int(name.rpartition("-")[2])))

    def signer(self, name: str) -> NaClSigner:
        """The key called `name`.

        Raises:
            KeystoreError: not here, damaged, or under another passphrase.
        """
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError:
            raise KeystoreError(f"there is no key {name} in {self.folder}") from None
        seed = self._open(name, data) if data.startswith(_SEALED) else data
        if len(seed) != _SEED_BYTES:
            raise KeystoreError(f"{self._path(name)} is damaged", remedy="restore it from your backup")
        return NaClSigner.from_seed(seed)

    def signers(self, role: str) -> list[NaClSigner]:
        """All keys for a role: root keys for `root`, release keys for `targets` and every model role."""
        kind = "root-" if role == "root" else "release-"
        return [self.signer(name) for name in self.names() if name.startswith(kind)]

    def pinned_root(self) -> bytes | None:
        """The root that this folder last verified."""
        path = self.folder / "root.json"
        return path.read_bytes() if path.exists() else None

    def pin_root(self, root: bytes) -> None:
        """Remember a verified root."""
        if self.pinned_root() != root:
            make_folder(self.folder)
            replace_file(self.folder / "root.json", root)

    def retire(self, name: str) -> None:
        """Set a key aside that nothing trusts any more: `NAME.key` becomes `NAME.retired`."""
        self._path(name).replace(self.folder / f"{name}.retired")

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise BadInputError(f"{name!r} is not a key name", remedy="use root-N or release-N, such as release-2")
        return self.folder / f"{name}.key"

    def _seal(self, seed: bytes) -> bytes:
        if self._passphrase is None:
            return seed
        salt = random(argon2id.SALTBYTES)
        return _SEALED + salt + bytes(SecretBox(_stretch(self._passphrase, salt)).encrypt(seed))

    def _open(self, name: str, data: bytes) -> bytes:
        if self._passphrase is None:
            raise KeystoreError(f"{name} is protected by a passphrase", remedy="set FLOTILLA_KEYS_PASSPHRASE")
        salt, box = data[len(_SEALED) :][: argon2id.SALTBYTES], data[len(_SEALED) + argon2id.SALTBYTES :]
        try:
            return SecretBox(_stretch(self._passphrase, salt)).decrypt(box)
        except (CryptoError, ValueError):
            raise KeystoreError(
                f"the passphrase does not open {name}", remedy="check FLOTILLA_KEYS_PASSPHRASE"
            ) from None


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    return argon2id.kdf(
        SecretBox.KEY_SIZE, passphrase, salt, argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
    )
