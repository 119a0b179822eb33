import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadInputError
from shared.identifiers import NAME_PATTERN
from shared.topics import ALL_UP, DOWN, Address, Channel, all_down


@given(device=st.from_regex(NAME_PATTERN, fullmatch=True), channel=st.sampled_from(Channel))
def test_an_address_is_read_as_it_was_written(device: str, channel: Channel) -> None:
    topic = str(Address(device, channel))
    assert Address.parse(topic) == Address(device, channel)
    assert topic.count("/") <= 5
    assert len(topic) < 100


def test_topics_are_those_of_the_protocol() -> None:
    assert str(Address("dev-a", Channel.ANNOUNCE)) == "flotilla/v1/dev-a/down/announce"
    assert str(Address("dev-a", Channel.TELEMETRY)) == "flotilla/v1/dev-a/up/telemetry"
    assert ALL_UP == "flotilla/v1/+/up/+"
    assert all_down("dev-a") == "flotilla/v1/dev-a/down/+"
    assert Channel.STATE not in DOWN


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "flotilla/v1/dev-a/up",
        "flotilla/v1/dev-a/up/announce",
        "flotilla/v1/dev-a/down/report",
        "flotilla/v1/dev-a/up/other",
        "flotilla/v2/dev-a/up/report",
        "flotilla/v1/Dev/up/report",
        "flotilla/v1/+/up/report",
        "flotilla/v1//up/report",
        "flotilla/v1/dev-a/up/report/x",
        "flotilla/v1/dev-a\n/up/report",
    ],
)
def test_what_is_no_topic_of_ours_is_refused(topic: str) -> None:
    with pytest.raises(BadInputError):
        Address.parse(topic)


@given(topic=st.text(max_size=200))
def test_any_topic_gives_an_address_or_a_refusal(topic: str) -> None:
    with contextlib.suppress(BadInputError):
        assert str(Address.parse(topic)) == topic
