"""Every MQTT topic, built and parsed in one place.

I/O: none.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from shared.errors import BadInputError
from shared.identifiers import checked

PREFIX: Final = "flotilla/v1"


class Channel(StrEnum):
    """The last part of a topic; its direction is fixed."""

    ANNOUNCE = "announce"  # manager -> device, QoS 1, retained
    COMMAND = "command"  # manager -> device, QoS 1
    ACK = "ack"  # manager -> device, QoS 1
    PIECE = "piece"  # manager -> device, QoS 1
    STATE = "state"  # device -> manager, QoS 1, retained, also the last will
    REPORT = "report"  # device -> manager, QoS 1
    TELEMETRY = "telemetry"  # device -> manager, QoS 1
    WANT = "want"  # device -> manager, QoS 1


DOWN: Final = frozenset({Channel.ANNOUNCE, Channel.COMMAND, Channel.ACK, Channel.PIECE})

#: What the manager subscribes to: everything that any device says.
ALL_UP: Final = f"{PREFIX}/+/up/+"


@dataclass(frozen=True, slots=True)
class Address:
    """One device's channel. `Address.parse(str(a)) == a`."""

    device: str
    channel: Channel

    def __str__(self) -> str:
        way = "down" if self.channel in DOWN else "up"
        return f"{PREFIX}/{self.device}/{way}/{self.channel}"

    @classmethod
    def parse(cls, topic: str) -> Self:
        """Inverse of `str`.

        Raises:
            BadInputError: not a topic of ours.
        """
        match topic.split("/"):
            case ["flotilla", "v1", device, way, name] if name in set(Channel):
                address = cls(checked("device id", device), Channel(name))
                if way == ("down" if address.channel in DOWN else "up"):
                    return address
        raise BadInputError(f"not a Flotilla topic: {topic[:120]!r}")


def all_down(device: str) -> str:
    """The one filter that a device subscribes to."""
    return f"{PREFIX}/{device}/down/+"
