"""Where may be posted: addresses of the open internet; this machine by its own name; the rest only when allowed.

A name is resolved once and the address that was looked at is the one that is connected to, so that nobody can show
a harmless address first and another one later.

I/O: none.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from fleet.alerts.channels import LOOPBACK
from fleet.alerts.senders.failures import ChannelSetupError

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")  # NAT64 carries an IPv4 address in its end
Address = IPv4Address | IPv6Address


def chosen(host: str, found: Iterable[str], *, allow_private: bool) -> str:
    """The address to connect to.

    Raises:
        ChannelSetupError: the name leads to addresses that may not be posted to. One bad one among them is enough.
    """
    addresses = list(dict.fromkeys(found))
    bad = next((text for text in addresses if not _may(host, _carried(text), allow_private)), None)
    if bad is not None or not addresses:
        raise ChannelSetupError(
            f"{host} leads to {bad}, an address that is not of the open internet" if bad else f"{host} has no address",
            remedy="correct the URL; for a receiver of your own network set allow_private: true for this channel",
        )
    return addresses[0]


def _may(host: str, address: Address, allow_private: bool) -> bool:
    if address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback and host in LOOPBACK:
        return True
    return allow_private or address.is_global


def _carried(text: str) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one: that is where packets go."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
