"""Counts as splits: what is written is read, in few bits, and any bytes give counts or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.compact_split import Reader, Writer

COUNTS = st.lists(st.integers(0, 2**53), min_size=1, max_size=40)


@given(columns=st.lists(COUNTS, max_size=6), before=st.integers(0, 2**53))
def test_what_is_written_is_read(columns: list[list[int]], before: int) -> None:
    bits, expected = Writer(), before
    for counts in columns:
        expected = bits.counts(counts, expected)
    reader, found, expected = Reader(bits.bytes()), [], before
    for counts in columns:
        values, expected = reader.counts(len(counts), expected)
        found.append(values)
    assert found == columns


@given(value=st.integers(0, 2**64), order=st.integers(0, 20))
def test_a_number_of_any_order_is_read(value: int, order: int) -> None:
    bits = Writer()
    bits.number(value, order)
    assert Reader(bits.bytes()).number(order) == value


@given(data=st.binary(max_size=60), size=st.integers(1, 60), before=st.integers(0, 10**6))
def test_any_bytes_give_counts_that_add_up_or_a_refusal(data: bytes, size: int, before: int) -> None:
    try:
        counts, total = Reader(data).counts(size, before)
    except ValueError:
        return
    assert len(counts) == size
    assert min(counts) >= 0
    assert sum(counts) == total


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "cut off"), (b"\x00" * 20, "cut off"), (b"\x40", "below zero")],
)
def test_a_refusal_says_why(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Reader(data).counts(1, 0)


def test_a_half_of_its_share_costs_about_half_the_bits_of_what_is_split() -> None:
    bits = Writer()
    bits.counts([625] * 16, 10_000)
    assert len(bits.bytes()) <= 16 * 6 / 8 + 4
