"""Where sealed chunks are kept, named by digest: written once, never changed.

    chunks/ab/abcdef...        servable by any web server or bucket as it stands

A folder (`folder_depot`) or a URL that fsspec knows (`bucket_depot`), under one contract
(tests/fleet/releases/test_depots.py).

I/O: none.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from shared.chunking import CHUNK_BYTES, OVERHEAD_BYTES, check
from shared.errors import BadInputError
from shared.identifiers import DIGEST_PATTERN, checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

MAX_CHUNK_BYTES: Final = CHUNK_BYTES + OVERHEAD_BYTES
NAME: Final = re.compile(DIGEST_PATTERN)
ABANDONED_AFTER: Final = timedelta(days=1)  # a chunk that no release names by then: its upload was given up


class Depot(Protocol):
    """Safe for any number of writers: equal names mean equal content.

    All but `where` may raise BadInputError (no digest) and StoreError (the place cannot be reached now).
    """

    def where(self, name: str) -> Path | None:
        """The file of the chunk called `name`, whether or not it is there; None: it lies in no file of ours."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are not here, in the same order. The others count as new again from now on."""

    def get(self, name: str) -> bytes | None:
        """The bytes of the chunk, or None. Whoever opens them checks them."""

    def put(self, name: str, chunk: bytes) -> bool:
        """Keep `chunk` durably; False if it was here before. It counts as new from now on.

        Raises:
            BadInputError: too long for a chunk, or no digest.
            DamagedChunkError: `name` is not its digest.
        """

    def remove(self, name: str, *, before: datetime | None = None) -> bool:
        """Delete the chunk called `name`, with `before` only if it has not counted as new since; False if it did, or
        was not here. A deletion that a power cut undoes is repeated."""

    def older(self, before: datetime) -> Sequence[str]:
        """Names of chunks that have not counted as new since `before`."""


def place(name: str) -> str:
    """Path of the chunk called `name` below the depot, with `/` between.

    Raises:
        BadInputError: not a digest; so no name can lead elsewhere.
    """
    digest = checked("digest", name)
    return f"chunks/{digest[:2]}/{digest}"


def examined(name: str, chunk: bytes) -> None:
    """Nothing, if `chunk` may be kept under `name`; errors as of `Depot.put`."""
    if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
        raise BadInputError(f"a chunk of {len(chunk)} bytes; 1 to {MAX_CHUNK_BYTES} are allowed")
    checked("digest", name)
    check(chunk, name)
