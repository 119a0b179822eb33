"""A bundle: releases for devices that the network does not reach, as files in a folder.

    bundle.json, bundle.sig            what is inside and until when; signed by the manager's director key
    metadata/FILE                      TUF metadata as served, `timestamp.json` too
    assignments/DEVICE/NUMBER.json     one signed assignment for each release and device
    manifests/DIGEST   chunks/ab/ab... as served

Only `bundle.json` is new: everything else is what the network would bring, and is verified as if it had
(docs/protocol.md §8).

I/O: none.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from shared.errors import BadInputError, RefusedError
from shared.identifiers import DeviceId, Digest, ModelName, Version

DESCRIPTION: Final = "bundle.json"
SIGNATURE: Final = "bundle.sig"
MAX_DESCRIPTION_BYTES: Final = 16 * 1024 * 1024
MAX_SIGNATURE_BYTES: Final = 4096
MAX_DEVICES: Final = 100_000
MAX_RELEASES: Final = 64
_CONTEXT: Final = b"flotilla/bundle/1|"


class BundleError(RefusedError):
    """A folder that is no bundle, or one from which something is missing or damaged."""

    code = "E_BUNDLE"
    default_remedy = "copy the whole bundle again, or export it anew: flotilla bundle export"


class BundleExpiredError(RefusedError):
    """A genuine bundle whose time is over."""

    code = "E_BUNDLE_EXPIRED"
    default_remedy = "check the clock of this device; export a new bundle: flotilla bundle export"


class BundleDeviceError(RefusedError):
    """A genuine bundle that holds nothing for this device."""

    code = "E_BUNDLE_DEVICE"
    default_remedy = "export one for this device: flotilla bundle export MODEL@VERSION --device ID"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Packed(Part):
    """One release inside."""

    model: ModelName
    version: Version
    manifest: Digest


class Bundle(Part):
    """`bundle.json`. `assignments` lists, for each device, its assignments in the order of `releases`."""

    type: Literal["bundle/1"] = "bundle/1"
    created: AwareDatetime
    expires: AwareDatetime
    releases: Annotated[tuple[Packed, ...], Field(min_length=1, max_length=MAX_RELEASES)]
    assignments: Annotated[dict[DeviceId, tuple[PositiveInt, ...]], Field(min_length=1, max_length=MAX_DEVICES)]

    def to_bytes(self) -> bytes:
        """The file that is signed."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The description in `data`; its signature is checked elsewhere.

        Raises:
            BundleError: not one.
        """
        if len(data) > MAX_DESCRIPTION_BYTES:
            raise BundleError(f"{DESCRIPTION} has more than {MAX_DESCRIPTION_BYTES} bytes")
        try:
            return cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            raise BundleError(f"{DESCRIPTION} is damaged: {str(error).splitlines()[0]}") from None


def signed_part(description: bytes) -> bytes:
    """What the director signs for `bundle.json`: the file and the purpose."""
    return _CONTEXT + description


def assignment_path(device: str, number: int) -> str:
    """Where assignment `number` of `device` lies."""
    return f"assignments/{device}/{number}.json"


def manifest_path(digest: str) -> str:
    """Where a manifest lies."""
    return f"manifests/{digest}"


def chunk_path(name: str) -> str:
    """Where a chunk lies: the same as in a release store."""
    return f"chunks/{name[:2]}/{name}"


def metadata_path(file: str) -> str:
    """Where a metadata file lies.

    Raises:
        BadInputError: no plain name, so that none can lead out of the folder.
    """
    if "/" in file or file.startswith(".") or not file.endswith(".json"):
        raise BadInputError(f"{file[:80]!r} is not the name of a metadata file")
    return f"metadata/{file}"
