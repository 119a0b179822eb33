"""Floats cut into exponents and the rest come together again, wherever they lie."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import planes
from shared.planes import Form, Joiner

WEIGHTS = np.random.default_rng(1).normal(0, 0.02, 50_000)


@given(plain=st.binary(max_size=300), width=st.sampled_from([2, 4]), lead=st.integers(0, 3))
def test_any_bytes_come_together_again_in_every_form(plain: bytes, width: int, lead: int) -> None:
    if lead >= width or lead > len(plain):
        with pytest.raises(ValueError, match="floats of"):
            Form.of(width, lead, len(plain))
        return
    form = Form.of(width, lead, len(plain))
    kept, top = planes.split(plain, form)
    assert len(kept) + len(top) == len(plain)
    assert len(top) == form.count
    assert Joiner().join(kept, top, form) == plain


def test_one_joiner_takes_pieces_of_all_lengths_in_turn() -> None:
    joiner = Joiner()
    for size in (5000, 40, 70_001, 4, 70_002, 0):
        for width in (4, 2):
            plain = os.urandom(size)
            form = Form.of(width, min(1, size), size)
            assert joiner.join(*planes.split(plain, form), form) == plain


@pytest.mark.parametrize("lead", [0, 1, 2, 3])
def test_floats_are_found_behind_other_bytes(lead: int) -> None:
    found = planes.guess(os.urandom(lead) + WEIGHTS.astype("<f4").tobytes())
    assert found is not None
    assert (found.width, found.lead) == (4, lead)
    half = planes.guess(os.urandom(lead) + WEIGHTS.astype("<f2").tobytes())
    assert half is not None
    assert (half.width, half.lead) == (2, lead % 2)


def test_short_pieces_have_no_form() -> None:
    assert planes.guess(bytes(4095)) is None


def test_parts_of_other_lengths_are_refused() -> None:
    plain = WEIGHTS[:1000].astype("<f4").tobytes()
    form = Form.of(4, 0, len(plain))
    kept, top = planes.split(plain, form)
    for parts in ((kept[1:], top), (kept, top[1:]), (kept[4:], top + b"four"), (b"", b"")):
        with pytest.raises(ValueError, match="planes of other lengths"):
            Joiner().join(*parts, form)
