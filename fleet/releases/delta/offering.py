"""Deltas of a release that is about to be signed: made, proved, sealed, described.

I/O: none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fleet.releases.delta import encoding
from shared import chunking
from shared.delta import offer
from shared.delta.rebuild import rebuild
from shared.identifiers import sha256
from shared.manifest import Artifact, Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fleet.releases.delta.fitting import Fit

#: A delta above this part of the full file is not worth the work it makes.
_WORTH: Final = 0.95


@dataclass(frozen=True, slots=True)
class Made:
    """A delta ready to be uploaded: `chunks` are ciphertext by name, with the description among them."""

    offer: offer.Offer
    chunks: Mapping[str, bytes]
    delta: encoding.Delta


def make(
    old: bytes,
    new: bytes,
    *,
    content_key: bytes,
    full_bytes: int,
    progress: Callable[[int], None] = lambda _: None,
    grids: Mapping[int, Fit] = MappingProxyType({}),
) -> Made | None:
    """The delta from `old` to `new`; None when the full file of `full_bytes` sealed bytes is about as small.

    Raises:
        RuntimeError: our own reader does not come to `new` (a fault in this program, before anything is published).
    """
    try:
        delta = encoding.encode(old, new, progress, grids)
    except encoding.TooDifferentError:
        return None
    if len(delta.data) > _WORTH * full_bytes:
        return None
    prove(delta.data, old, new)
    return Made(*sealed(delta.data, old, new, content_key=content_key), delta)


def sealed(stream: bytes, old: bytes, new: bytes, *, content_key: bytes) -> tuple[offer.Offer, dict[str, bytes]]:
    """What is offered for the delta `stream`, and all that devices fetch for it, by name."""
    base = sha256(old)
    chunks: dict[str, bytes] = {}
    artifact = _sealed(stream, offer.artifact(base), content_key, chunks)
    described = offer.Description(
        base=base, base_bytes=len(old), result=sha256(new), result_bytes=len(new), stream=artifact
    ).to_bytes()
    chunks[sha256(described)] = described
    made = offer.Offer(
        base=base, description=sha256(described), description_bytes=len(described), sealed_bytes=artifact.sealed_bytes
    )
    return made, chunks


def prove(data: bytes, old: bytes, new: bytes) -> None:
    """Nothing, if the stream makes `new` out of `old` as a device would.

    Raises:
        RuntimeError: it does not.
    """
    digest = hashlib.sha256()
    for piece in rebuild(memoryview(old), iter((data,)), result_bytes=len(new)):
        digest.update(piece)
    if digest.hexdigest() != sha256(new):
        raise RuntimeError("the delta does not lead to the new file")


def _sealed(data: bytes, name: str, content_key: bytes, chunks: dict[str, bytes]) -> Artifact:
    key = chunking.artifact_key(content_key, name)
    pieces = list(chunking.cut(len(data)))
    listed = []
    for index, (start, end) in enumerate(pieces):
        sealed = chunking.seal(data[start:end], key=key, artifact=name, index=index, count=len(pieces))
        chunks[sha256(sealed)] = sealed
        listed.append(Chunk(id=sha256(sealed), size_bytes=len(sealed), plain_bytes=end - start))
    return Artifact(digest=sha256(data), size_bytes=len(data), chunks=tuple(listed))
