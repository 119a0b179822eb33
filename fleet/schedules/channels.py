"""Which devices follow an alias of a model: those whose label `channel` names it.

A device without the label follows `stable`. Nobody gets a model that it does not serve already: the first version
comes by a rollout.

I/O: none.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import StringConstraints

CHANNEL_LABEL: Final = "channel"
DEFAULT: Final = "stable"
#: Letters first: an alias never looks like a version.
AliasName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


def follows(labels: Mapping[str, Any], serving: Mapping[str, Any], model: str, channel: str) -> bool:
    """True when a device with these labels follows the alias `channel` of `model`."""
    return model in serving and (labels.get(CHANNEL_LABEL) or DEFAULT) == channel
