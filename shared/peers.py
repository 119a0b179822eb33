"""What devices of one site and their manager say to each other, so that a release comes to the site once.

    Ask, signed by the device --HTTP--> manager --> Answer: whose turn it is, who has what, a passport

The bodies of `POST /api/v1/peers` (docs/protocol.md §9). Nothing in them makes a chunk trustworthy: its name does.

I/O: none.
"""

import hashlib
from ipaddress import ip_address
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.identifiers import DeviceId, Digest
from shared.messages import Message

#: What an `Ask` is signed for (`shared.seal`), in the place of a topic.
TOPIC: Final = "flotilla/v1/peers/ask"
MAX_WANTED: Final = 256
MAX_HOLDS: Final = 900  # so that an `Ask` stays below the limit of a message; the rest follows in the next
#: Where a device serves chunks to others; requests are these and nothing else.
CHUNKS: Final = "/chunks/"
MANIFESTS: Final = "/manifests/"
_DOMAIN: Final = "peers.flotilla"


def private(address: str) -> str:
    """`address` itself, if it is an IP address that belongs to a site and not to the internet.

    Raises:
        ValueError: it is not.
    """
    found = ip_address(address)
    if found.is_unspecified or found.is_multicast or not (found.is_private or found.is_link_local or found.is_loopback):
        raise ValueError("not an address of a local network: give the IP address that this device has at its site")
    return str(found)


LanAddress = Annotated[str, Field(max_length=64), AfterValidator(private)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Ask(Message):
    """Device -> manager: what I want, what I have for others."""

    type: Literal["peer-ask/1"] = "peer-ask/1"
    device: DeviceId
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # Ed25519, of my TLS
    passport: bool = False  # send me one
    address: LanAddress | None = None  # where I serve; None: nowhere
    port: Port | None = None
    epoch: str = ""  # of the last answer; the manager remembers what I told it then
    holds: Annotated[tuple[Digest, ...], Field(max_length=MAX_HOLDS)] = ()  # chunks that I have, not told before
    wanted: Annotated[tuple[Digest, ...], Field(max_length=MAX_WANTED)] = ()  # chunks that I lack
    failed: Annotated[tuple[Digest, ...], Field(max_length=MAX_WANTED)] = ()  # of these: no peer gave it

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.address is None) != (self.port is None):
            raise ValueError("address and port belong together")
        return self


class Peer(Message):
    """A device of the site that serves."""

    device: DeviceId
    address: LanAddress
    port: Port


class Answer(Message):
    """Manager -> device. `on` false: this site does not share, ask me again much later."""

    type: Literal["peer-answer/1"] = "peer-answer/1"
    on: bool
    epoch: Annotated[str, Field(max_length=64)] = ""  # changes when the manager forgot what it was told
    turns: Annotated[tuple[Digest, ...], Field(max_length=MAX_WANTED)] = ()  # fetch these now, from wherever you can
    peers: Annotated[tuple[Peer, ...], Field(max_length=512)] = ()
    held: dict[Digest, tuple[int, ...]] = Field(default_factory=dict)  # chunk -> places in `peers`
    again_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    site: Annotated[str, Field(max_length=64)] = ""  # its name in passports
    passport: Annotated[str, Field(max_length=8192)] | None = None  # X.509, PEM
    authority: Annotated[str, Field(max_length=8192)] | None = None  # who signed it, PEM


def site_name(site: str) -> str:
    """A site in passports: the same for the same site, and fit for a name in a certificate."""
    return hashlib.sha256(site.encode()).hexdigest()[:32]


def domain(site: str) -> str:
    """What names in passports of a site (`site_name`) end with."""
    return f"{site}.{_DOMAIN}"


def server_name(device: str, site: str) -> str:
    """The name of `device` in its passport, and in TLS."""
    return f"{device}.{domain(site)}"
