"""Ask a broker whether it speaks MQTT 5, with the smallest CONNECT there is.

Some 3.1.1 brokers read the properties of a full MQTT 5 CONNECT as lengths and wait for ever
(amqtt); this one has none, so they answer «unacceptable protocol version» at once.

I/O: network.
"""

import contextlib
import socket
import ssl
from typing import Final

from shared.link_terms import BrokerAddress

#: CONNECT, protocol level 5, clean start, keepalive 60 s, no properties, empty client id.
_CONNECT: Final = bytes.fromhex("10 0d 0004 4d515454 05 02 003c 00 0000")
_DISCONNECT: Final = bytes.fromhex("e0 00")
#: CONNACK in the form of 3.1.1: unacceptable protocol version.
_NOT_THIS_VERSION: Final = bytes.fromhex("20 02 00 01")


def speaks_v5(address: BrokerAddress, context: ssl.SSLContext | None, *, timeout_seconds: float) -> bool:
    """False only if the broker says that it does not. Needs no rights: a refusal is an answer too.

    Raises:
        OSError: the broker cannot be reached.
    """
    with socket.create_connection((address.host, address.port), timeout=timeout_seconds) as plain:
        if context is None:
            return _ask(plain)
        with context.wrap_socket(plain, server_hostname=address.host) as wire:
            return _ask(wire)


def _ask(wire: socket.socket) -> bool:
    answer = b""
    with contextlib.suppress(OSError):  # silence or a closed door tell nothing
        wire.sendall(_CONNECT)
        while len(answer) < len(_NOT_THIS_VERSION) and (more := wire.recv(64)):
            answer += more
        wire.sendall(_DISCONNECT)
    return not answer.startswith(_NOT_THIS_VERSION)
