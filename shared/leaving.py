"""What a device says when it leaves the fleet for good (docs/protocol.md, HTTP).

I/O: none.
"""

from typing import Final, Literal

from pydantic import AwareDatetime

from shared.identifiers import DeviceId
from shared.messages import Message

#: What a `Goodbye` is signed for (`shared.seal`), in the place of a topic.
TOPIC: Final = "flotilla/v1/leave"


class Goodbye(Message):
    """Device -> manager: revoke me. Saying it again is harmless."""

    type: Literal["goodbye/1"] = "goodbye/1"
    device: DeviceId
    at: AwareDatetime  # device clock: shown to people, never compared
