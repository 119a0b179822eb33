"""Payloads that a device signs with the key that it enrolled with (ADR 21).

    0x01 || Ed25519 signature (64 bytes) || payload, over "flotilla/uplink/1|" topic "|" payload

The topic is signed too: a payload proves nothing on another device's topic, or on another channel.

I/O: none.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from shared.errors import BadInputError

MARK: Final = b"\x01"
SIGNATURE_BYTES: Final = 64
_CONTEXT: Final = b"flotilla/uplink/1"


class SealError(BadInputError):
    """A payload whose signature is not by the key of the device that it names, or one without a signature."""

    code: ClassVar[str] = "E_SEAL"
    default_remedy: ClassVar[str] = "enrol the device again, or find out who else knows its broker password"


def sealed(payload: bytes, *, topic: str, sign: Callable[[bytes], bytes]) -> bytes:
    """`payload` with the signature that `sign` makes."""
    return MARK + sign(_said(topic, payload)) + payload


def opened(data: bytes, *, topic: str, key: bytes, required: bool) -> bytes:
    """The payload in `data`, signed by `key`; one without a signature only where none is `required`.

    Raises:
        SealError: signed by another key, damaged, or without the signature that is required.
    """
    if not data.startswith(MARK):
        if required:
            raise SealError("a payload without a signature")
        return data
    start = len(MARK) + SIGNATURE_BYTES
    signature, payload = data[len(MARK) : start], data[start:]
    try:
        VerifyKey(key).verify(_said(topic, payload), signature)
    except (BadSignatureError, ValueError, TypeError):
        raise SealError("the signature is not by the key of this device") from None
    return payload


def _said(topic: str, payload: bytes) -> bytes:
    return b"|".join((_CONTEXT, topic.encode(), payload))
