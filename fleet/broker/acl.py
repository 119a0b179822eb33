"""Who may publish, subscribe and receive what. A device has its own corner; the manager has all of ours.

I/O: none.
"""

from typing import Final

from shared.errors import BadInputError
from shared.topics import DOWN, PREFIX, Address

#: Client id and user name of the manager itself. No device can be called so: it has a dot.
MANAGER: Final = "flotilla.fleet"


def may_publish(client: str, topic: str) -> bool:
    """A device speaks only on its own `up` topics, the manager only on `down` topics."""
    try:
        address = Address.parse(topic)
    except BadInputError:
        return False
    if client == MANAGER:
        return address.channel in DOWN
    return address.device == client and address.channel not in DOWN


def may_subscribe(client: str, topic_filter: str) -> bool:
    """A device listens only below its own `down`, the manager to everything of ours."""
    if client == MANAGER:
        return topic_filter.startswith(f"{PREFIX}/")
    head, _, last = topic_filter.rpartition("/")
    return head == f"{PREFIX}/{client}/down" and bool(last)


def may_receive(client: str, topic: str) -> bool:
    """The same for one message on its way to a client."""
    return may_subscribe(client, topic)
