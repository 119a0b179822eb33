"""Checked strings: device ids, model names, versions, digests.

I/O: none.
"""

import hashlib
import re
from typing import Annotated, Final

from pydantic import StringConstraints

from shared.errors import BadInputError

NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
VERSION_PATTERN: Final = r"^[0-9]+(\.[0-9]+){0,3}(-[a-z0-9.]{1,32})?$"
DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$"

#: Lower-case letters, digits and inner hyphens, 1 to 64: safe in topics, paths and URLs.
DeviceId = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ModelName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
#: Dotted numbers with an optional pre-release part, such as `2.5.0` or `2.5.0-rc.1`.
Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN, max_length=64)]
#: Hexadecimal SHA-256, 64 characters.
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]

_FORMS: Final = {
    "device id": (NAME_PATTERN, "lower-case letters, digits and inner hyphens, at most 64"),
    "model name": (NAME_PATTERN, "lower-case letters, digits and inner hyphens, at most 64"),
    "version": (VERSION_PATTERN, "dotted numbers such as 1.4.0 or 1.4.0-rc.1"),
    "digest": (DIGEST_PATTERN, "64 hexadecimal characters (SHA-256)"),
}


def checked(kind: str, text: str) -> str:
    """`text` itself if it has the form of `kind` (a key of the table above).

    Raises:
        BadInputError: it has not; the text says what is allowed.
    """
    pattern, allowed = _FORMS[kind]
    if not re.fullmatch(pattern, text) or len(text) > 64:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise BadInputError(f"{shown!r} is not a {kind}", remedy=f"use {allowed}")
    return text


def sha256(data: bytes | bytearray | memoryview) -> str:
    """Digest of `data` as 64 hexadecimal characters."""
    return hashlib.sha256(data).hexdigest()


def release_path(model: str, version: str) -> str:
    """The TUF target path of a release's manifest."""
    return f"{model}/{version}/manifest.json"
