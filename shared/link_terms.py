"""What a broker link is told, what it hands out, and how it fails. `mqtt_link` gives all of these on.

I/O: disk.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from shared.errors import BadInputError, UnavailableError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class LinkDownError(UnavailableError):
    """The broker did not take the message: no connection, no answer in time, or a refusal."""

    code = "E_LINK_DOWN"
    default_remedy = "it is sent again when the broker answers; check the broker's address and its log"


class BrokerUrlError(BadInputError):
    """The address of the broker has not the form that it must have."""

    code = "E_BROKER_URL"
    default_remedy = "write it as mqtt://host:1883 or mqtts://host:8883"


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the broker is and as whom to speak to it."""

    url: str
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # mqtts only; None: the system's authorities
    keepalive_seconds: int = 30
    ahead: int = 100  # messages that the broker may send before we acknowledged the first of them


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker URL taken apart."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address in `url`.

        Raises:
            BrokerUrlError: neither mqtt:// nor mqtts://, no host, or no sensible port.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (KeyError, ValueError):
            raise BrokerUrlError(f"{url!r} is not the address of an MQTT broker") from None
        if not parts.hostname:
            raise BrokerUrlError(f"{url!r} names no host")
        return cls(parts.hostname, port, parts.scheme == "mqtts")


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message. `ack` tells the broker that it may forget it; any thread, any number of times."""

    topic: str
    payload: bytes
    retained: bool
    acknowledge: Callable[[], None] = field(repr=False, compare=False)

    def ack(self) -> None:
        """Acknowledge. Of a connection that has ended: nothing, the broker sends the message again."""
        self.acknowledge()
