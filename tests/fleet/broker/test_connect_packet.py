"""The first packet of a connection: any bytes give a value or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTProtocolVersion
from paho.mqtt.enums import CallbackAPIVersion

from fleet.broker import connect_packet
from shared.errors import BadInputError


def packed(will: bool = True) -> bytes:
    """What paho sends."""
    client = Client(
        CallbackAPIVersion.VERSION2, client_id="cam-1", clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
    )
    client.username_pw_set("cam-1", "pässword")
    if will:
        client.will_set("flotilla/v1/cam-1/up/state", b"{}", qos=1, retain=True)
    client._send_connect(30)
    return bytes(client._out_packet[0]["packet"])


def test_what_a_client_sends_is_understood() -> None:
    packet = packed()
    assert connect_packet.remaining_length(packet[:2]) == len(packet) - 2
    found = connect_packet.parse(packet[2:])
    assert found == connect_packet.Connect(4, "cam-1", False, "flotilla/v1/cam-1/up/state", "cam-1", "pässword")
    assert "pässword" not in repr(found)


@given(st.integers(min_value=0, max_value=len(packed()) - 3))
def test_a_packet_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(BadInputError):
        connect_packet.parse(packed()[2 : 2 + length])


@given(st.binary(max_size=300))
def test_any_bytes_give_a_packet_or_a_refusal(data: bytes) -> None:
    for start in (b"", b"\x00\x04MQTT\x04"):
        try:
            connect_packet.parse(start + data)
        except BadInputError:
            continue


@pytest.mark.parametrize(
    ("head", "length"),
    [(b"\x10", None), (b"\x10\x80", None), (b"\x10\x7f", 127), (b"\x10\x80\x01", 128), (b"\x10\xff\xff\x03", 65535)],
)
def test_lengths(head: bytes, length: int | None) -> None:
    assert connect_packet.remaining_length(head) == length


@pytest.mark.parametrize("head", [b"\x30\x05", b"\x10\xff\xff\xff\x7f", b"\x10\x80\x80\x80\x80"])
def test_other_packets_and_huge_ones_are_refused(head: bytes) -> None:
    with pytest.raises(BadInputError):
        connect_packet.remaining_length(head)
