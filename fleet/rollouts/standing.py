"""Whether a release may still be given to devices.

I/O: none.
"""

from typing import Final

from fleet.rollouts.errors import WithdrawnError
from fleet.store.tables import Release

RELEASED: Final = "released"
WITHDRAWN: Final = "withdrawn"
RETIRED: Final = "retired"  # its chunks are gone


def check(release: Release) -> None:
    """Return if rollouts, schedules, aliases and bundles may bring it to devices.

    Raises:
        WithdrawnError: it was withdrawn or retired.
    """
    if release.state != RELEASED:
        raise _refused(release)


def check_given(release: Release) -> None:
    """As `check`, but a device may be sent back to a retired release that it still has in a slot.

    Raises:
        WithdrawnError: it was withdrawn.
    """
    if release.withdrawn_at is not None or release.state == WITHDRAWN:
        raise _refused(release)


def _refused(release: Release) -> WithdrawnError:
    state = WITHDRAWN if release.withdrawn_at is not None else release.state
    why = f": {release.withdrawn_reason}" if release.withdrawn_reason else ""
    return WithdrawnError(
        f"{release.model}@{release.version} is {state}{why}",
        remedy=f"choose another version: flotilla model show {release.model}",
    )
