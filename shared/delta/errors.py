"""The one way in which a delta fails.

I/O: none.
"""

from typing import ClassVar

from shared.errors import RefusedError


class DeltaError(RefusedError):
    """The stream does not give the new file: fetch the whole file instead."""

    code: ClassVar[str] = "E_DELTA"
    default_remedy: ClassVar[str] = "nothing to do: the device fetches the whole file; publish the delta again"
