"""Payloads that devices sign."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from shared import seal
from shared.seal import SealError

KEY = SigningKey(b"k" * 32)
TOPIC = "flotilla/v1/cam-1/up/telemetry"
PUBLIC = bytes(KEY.verify_key)


def sign(data: bytes) -> bytes:
    return KEY.sign(data).signature


@given(payload=st.binary(max_size=200))
def test_a_sealed_payload_opens_to_what_it_was(payload: bytes) -> None:
    data = seal.sealed(payload, topic=TOPIC, sign=sign)
    assert seal.opened(data, topic=TOPIC, key=PUBLIC, required=True) == payload
    assert len(data) == len(payload) + 65


@given(place=st.integers(1, 69), bit=st.integers(0, 7))
def test_one_bit_changed_anywhere_is_refused(place: int, bit: int) -> None:
    data = bytearray(seal.sealed(b"hello", topic=TOPIC, sign=sign))
    data[place] ^= 1 << bit
    with pytest.raises(SealError):
        seal.opened(bytes(data), topic=TOPIC, key=PUBLIC, required=False)


@pytest.mark.parametrize("topic", ["flotilla/v1/cam-2/up/telemetry", "flotilla/v1/cam-1/up/report"])
def test_a_payload_of_another_topic_is_refused(topic: str) -> None:
    data = seal.sealed(b"hello", topic=TOPIC, sign=sign)
    with pytest.raises(SealError, match="not by the key"):
        seal.opened(data, topic=topic, key=PUBLIC, required=False)


@pytest.mark.parametrize("data", [seal.MARK, seal.MARK + bytes(10), seal.MARK + bytes(64), seal.MARK + bytes(80)])
def test_what_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(SealError):
        seal.opened(data, topic=TOPIC, key=PUBLIC, required=False)


def test_a_payload_without_a_signature_is_taken_only_where_none_is_required() -> None:
    assert seal.opened(b"{}", topic=TOPIC, key=PUBLIC, required=False) == b"{}"
    with pytest.raises(SealError, match="without a signature"):
        seal.opened(b"{}", topic=TOPIC, key=PUBLIC, required=True)
