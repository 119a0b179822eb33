"""What a release offers beside the full file: a delta from an older model file (`docs/protocol.md` §4).

    signed target of the release: custom.deltas = [Offer, ...]  ->  Description (named by digest)  ->  sealed chunks

An offer is a hint. Devices that do not know of it, or cannot use it, fetch the full file.

I/O: none.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, ValidationError

from shared.delta.errors import DeltaError
from shared.identifiers import Digest, sha256
from shared.manifest import Artifact, Chunk, Part

MAX_OFFERS: Final = 8
MAX_DESCRIPTION_BYTES: Final = 1024 * 1024  # it travels as a chunk does


class Offer(Part):
    """`base` is the SHA-256 of the model file that a device must hold."""

    base: Digest
    description: Digest
    description_bytes: Annotated[int, Field(ge=1, le=MAX_DESCRIPTION_BYTES)]
    sealed_bytes: PositiveInt  # of the delta's chunks

    @property
    def wire_bytes(self) -> int:
        """All that is fetched in place of the model's chunks."""
        return self.description_bytes + self.sealed_bytes

    @property
    def chunk(self) -> Chunk:
        """The description as something to be fetched by name."""
        return Chunk(id=self.description, size_bytes=self.description_bytes, plain_bytes=self.description_bytes)


class Description(Part):
    """One delta. `stream` is what `rebuild` reads, sealed with the content key of the release it leads to."""

    type: Literal["delta-manifest/1"] = "delta-manifest/1"
    base: Digest
    base_bytes: PositiveInt
    result: Digest
    result_bytes: PositiveInt
    stream: Artifact

    def to_bytes(self) -> bytes:
        """The bytes that the offer names."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, data: bytes, offer: Offer, result: Artifact) -> Self:
        """The description of `offer`, which must lead to the model file `result`.

        Raises:
            DeltaError: other bytes than named, no description, or of other files.
        """
        if sha256(data) != offer.description:
            raise DeltaError("the description of the delta has other content than its name says")
        try:
            found = cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            raise DeltaError(f"not a description of a delta: {str(error).splitlines()[0]}") from None
        if sum(chunk.plain_bytes for chunk in found.stream.chunks) != found.stream.size_bytes:
            raise DeltaError("the chunks of the delta do not add up to its size")
        if found.stream.sealed_bytes != offer.sealed_bytes or found.base != offer.base:
            raise DeltaError("the delta is not the one that was offered")
        if (found.result, found.result_bytes) != (result.digest, result.size_bytes):
            raise DeltaError("the delta leads to another file than the release's")
        return found


def artifact(base: str) -> str:
    """The name under which the chunks of the delta from `base` are sealed."""
    return f"delta-{base[:16]}"


def offers(custom: Mapping[str, Any] | None) -> tuple[Offer, ...]:
    """The offers in a signed target's `custom`; none where they are not in order, since they are hints."""
    listed = (custom or {}).get("deltas", [])
    if not isinstance(listed, list) or len(listed) > MAX_OFFERS:
        return ()
    try:
        return tuple(Offer.model_validate(each) for each in listed)
    except ValidationError:
        return ()
