"""Keys and what is done with them: sign, verify, seal for one device.

Ed25519 keys in TUF metadata are handled by PyNaCl (`install()` registers them), X25519 sealed boxes
carry the content key to a device or to the manager's escrow (ADR 2).

I/O: chance.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # its stubs list no names
    KEY_FOR_TYPE_AND_SCHEME,
    Key,
    SecretsHandler,
    Signature,
    Signer,
)

from shared.errors import BadInputError, RefusedError
from shared.identifiers import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_KEY_BYTES: Final = 32
MAX_JSON_DEPTH: Final = 32


class SealError(RefusedError):
    """The sealed content key was not made for this device."""

    code = "E_SEALED_KEY"


class NaClKey(Key):
    """Public Ed25519 key of TUF metadata, verified by PyNaCl."""

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> NaClKey:
        keytype, scheme, keyval = cls._from_dict(key_dict)
        if len(bytes.fromhex(keyval["public"])) != 32:
            raise ValueError("an Ed25519 public key has 32 bytes")
        return cls(keyid, keytype, scheme, keyval, key_dict)

    @classmethod
    def of(cls, verify_key: VerifyKey) -> NaClKey:
        """The TUF form of a raw key; its id is the digest of the key itself."""
        raw = bytes(verify_key)
        return cls(sha256(raw), "ed25519", "ed25519", {"public": raw.hex()})

    def to_dict(self) -> dict[str, Any]:
        return self._to_dict()

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        try:
            VerifyKey(bytes.fromhex(self.keyval["public"])).verify(data, bytes.fromhex(signature.signature))
        except BadSignatureError:
            raise UnverifiedSignatureError(f"signature by {self.keyid[:12]} does not fit") from None
        except (ValueError, TypeError) as error:
            raise VerificationError(f"signature by {self.keyid[:12]} is malformed") from error


class NaClSigner(Signer):
    """Private half of a `NaClKey`."""

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        self._public = NaClKey.of(signing_key.verify_key)

    @property
    def public_key(self) -> NaClKey:
        return self._public

    @classmethod
    def generate(cls) -> NaClSigner:
        """A new key pair."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> NaClSigner:
        """The key pair of a stored 32-byte seed."""
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes to store."""
        return bytes(self._signing_key)

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> NaClSigner:
        raise NotImplementedError("Flotilla's keys are opened by their owners, not by URI")

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self._signing_key.sign(payload).signature.hex())


def install() -> None:
    """Let TUF metadata use `NaClKey`. Calling it twice is harmless."""
    KEY_FOR_TYPE_AND_SCHEME[("ed25519", "ed25519")] = NaClKey


def seal(secret: bytes, public_key: bytes) -> str:
    """`secret` for the owner of the X25519 `public_key` only; base64 text of 48 more bytes."""
    return base64.b64encode(SealedBox(PublicKey(public_key)).encrypt(secret)).decode()


def unseal(sealed: str, private_key: bytes) -> bytes:
    """Inverse of `seal`.

    Raises:
        SealError: sealed for somebody else, or damaged.
    """
    try:
        return SealedBox(PrivateKey(private_key)).decrypt(base64.b64decode(sealed, validate=True))
    except (CryptoError, ValueError, binascii.Error):
        raise SealError("the content key is not sealed for this device") from None


def new_content_key() -> bytes:
    """A fresh key for one release."""
    return secrets.token_bytes(CONTENT_KEY_BYTES)


def strict_json(data: bytes | str, *, limit_bytes: int) -> Any:
    """Parse JSON that a signature may cover: repeated keys, deep nesting and huge numbers are refused.

    Raises:
        BadInputError: one of these, or not JSON at all.
    """
    if len(data) > limit_bytes:
        raise BadInputError(f"JSON of {len(data)} bytes; the limit is {limit_bytes}")
    if _depth(data if isinstance(data, bytes) else data.encode()) > MAX_JSON_DEPTH:
        raise BadInputError(f"JSON nested deeper than {MAX_JSON_DEPTH}")
    try:
        return json.loads(data, object_pairs_hook=_no_repeats, parse_int=_small, parse_constant=_refuse)
    except BadInputError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"not JSON: {error}") from None


def _depth(data: bytes) -> int:
    deepest = depth = 0
    in_text = escaped = False
    for byte in data:
        if in_text:
            escaped, in_text = (not escaped and byte == 0x5C), not (byte == 0x22 and not escaped)
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _no_repeats(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadInputError("JSON with a repeated key")
    return found


def _small(digits: str) -> int:
    if len(digits) > 20:
        raise BadInputError("JSON with an over-long number")
    return int(digits)


def _refuse(name: str) -> Any:
    raise BadInputError(f"JSON with {name}")
