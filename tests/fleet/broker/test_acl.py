"""Who may speak and listen where: the whole table."""

import pytest

from fleet.broker import acl
from shared.identifiers import NAME_PATTERN
from shared.topics import Address, Channel

UP = (Channel.STATE, Channel.REPORT, Channel.TELEMETRY)
DOWN = (Channel.ANNOUNCE, Channel.COMMAND, Channel.ACK)


def test_no_device_can_be_called_like_the_manager() -> None:
    import re

    assert not re.fullmatch(NAME_PATTERN, acl.MANAGER)


@pytest.mark.parametrize("channel", UP)
def test_a_device_speaks_only_on_its_own_up_topics(channel: Channel) -> None:
    assert acl.may_publish("cam-1", str(Address("cam-1", channel)))
    assert not acl.may_publish("cam-2", str(Address("cam-1", channel)))
    assert not acl.may_publish(acl.MANAGER, str(Address("cam-1", channel)))


@pytest.mark.parametrize("channel", DOWN)
def test_only_the_manager_speaks_down(channel: Channel) -> None:
    assert acl.may_publish(acl.MANAGER, str(Address("cam-1", channel)))
    assert not acl.may_publish("cam-1", str(Address("cam-1", channel)))


@pytest.mark.parametrize(
    "topic", ["flotilla/v1/cam-1/up/other", "flotilla/v1/cam-1/up/state/x", "flotilla/v2/cam-1/up/state", "x", ""]
)
def test_nobody_speaks_elsewhere(topic: str) -> None:
    assert not acl.may_publish("cam-1", topic)
    assert not acl.may_publish(acl.MANAGER, topic)


@pytest.mark.parametrize("own", ["flotilla/v1/cam-1/down/+", "flotilla/v1/cam-1/down/#", "flotilla/v1/cam-1/down/ack"])
def test_a_device_listens_below_its_own_down(own: str) -> None:
    assert acl.may_subscribe("cam-1", own)
    assert acl.may_subscribe(acl.MANAGER, own)
    assert not acl.may_subscribe("cam-2", own)
    assert not acl.may_subscribe("cam", own)


@pytest.mark.parametrize(
    "other",
    ["#", "+/#", "flotilla/#", "flotilla/v1/+/down/ack", "flotilla/v1/cam-1/#", "flotilla/v1/cam-1/up/+", "$SYS/#"],
)
def test_a_device_listens_nowhere_else(other: str) -> None:
    assert not acl.may_subscribe("cam-1", other)
