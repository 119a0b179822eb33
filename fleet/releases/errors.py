"""What can be wrong with a release or with the documents around it.

`status` is the answer over HTTP.

I/O: none.
"""

from typing import ClassVar

from shared.errors import BrokenError, RefusedError, UnavailableError


class MetadataError(RefusedError):
    """A signed document that a device would refuse, so it is not accepted here either."""

    code = "E_METADATA"
    status: ClassVar[int] = 422
    default_remedy = "make it again with the `flotilla` command; do not edit signed files"


class NotInitialisedError(RefusedError):
    """Nobody gave this manager its trust yet."""

    code = "E_NOT_INITIALISED"
    default_remedy = "run `flotilla init`"


class RestoredError(RefusedError):
    """The manager was restored from a backup: devices know newer signed documents than it does."""

    code = "E_RESTORED"
    status: ClassVar[int] = 409
    default_remedy = "run `flotilla init` where the release keys are: it signs the documents anew"


class OnlineKeysError(RefusedError):
    """The root names online keys that this manager does not hold."""

    code = "E_ONLINE_KEYS"
    default_remedy = "run `flotilla key rotate online` against this manager"


class EmbeddingError(RefusedError):
    """The output that was named for the embedding cannot be one."""

    code = "E_EMBEDDING"
    default_remedy = "name a float output with one row of values for each row of input, or leave --embedding out"


class VersionExistsError(RefusedError):
    """The version is taken by other content."""

    code = "E_VERSION_EXISTS"
    default_remedy = "publish it under a new version"


class ChunksMissingError(RefusedError):
    """The manifest names chunks that were not uploaded."""

    code = "E_CHUNKS_MISSING"
    default_remedy = "run `flotilla model publish` again; it uploads only what is missing"


class EscrowError(RefusedError):
    """The sealed content key does not open here, or does not fit the release."""

    code = "E_ESCROW"
    status: ClassVar[int] = 422
    default_remedy = "was the manager's `keys` folder replaced? restore it from the backup, or publish again"


class NoDocumentError(RefusedError):
    """There is no metadata file of this name."""

    code = "E_NO_DOCUMENT"
    status: ClassVar[int] = 404


class StoreError(UnavailableError):
    """The place where chunks are kept cannot be reached, or refuses."""

    code = "E_STORE"
    default_remedy = "check releases.store, its credentials and the network from the manager to it; then repeat"


class StoreSetupError(BrokenError):
    """`releases.store` is no place that this manager knows how to reach."""

    code = "E_STORE_SETUP"
    default_remedy = "write a folder or a URL such as s3://bucket/prefix; for s3: pip install 'flotilla-edge[bucket]'"
