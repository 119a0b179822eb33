"""Labels of devices that mean something to us: `timezone` and `channel`.

I/O: none.
"""

import re
from collections.abc import Mapping
from typing import Final

from fleet.schedules.channels import CHANNEL_LABEL
from fleet.schedules.timing import ZONE_LABEL
from shared.errors import BadInputError
from shared.windows import check_zone

_ALIAS: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def changed(labels: Mapping[str, str], *, timezone: str | None = None, channel: str | None = None) -> dict[str, str]:
    """The labels with these set; empty: removed, None: as they are.

    Raises:
        ZoneError, BadInputError: as `checked`.
    """
    said = {ZONE_LABEL: timezone, CHANNEL_LABEL: channel}
    merged = {**labels, **{key: value for key, value in said.items() if value is not None}}
    return checked({key: value for key, value in merged.items() if value or key not in said})


def checked(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, if those that mean something can be understood.

    Raises:
        ZoneError: `timezone` is none.
        BadInputError: `channel` cannot be the name of an alias.
    """
    if ZONE_LABEL in labels:
        check_zone(labels[ZONE_LABEL])
    if CHANNEL_LABEL in labels and not _ALIAS.fullmatch(labels[CHANNEL_LABEL]):
        raise BadInputError(
            f"{labels[CHANNEL_LABEL][:40]!r} cannot be a channel",
            remedy="use the name of an alias, such as stable or candidate",
        )
    return dict(labels)
