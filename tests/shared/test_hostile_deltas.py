"""Damaged deltas, on every level: the release's file or a refusal comes out (the benchmark tries many more)."""

from collections import Counter
from functools import reduce

import pytest

from shared.delta.layout import Method, Use
from shared.errors import RefusedError
from tests.simulators.hostile_deltas import LEVELS, broken, head, pairs, sealed, taken

PAIRS = 10  # as many as there are; to make them takes a second, which collecting need not wait for


def test_the_pairs_use_every_method_and_every_part_of_a_prediction() -> None:
    assert len(pairs()) == PAIRS
    ops = [op for pair in pairs() for op in head(pair.stream).ops]
    assert {op.method for op in ops} == set(Method)
    assert reduce(lambda one, other: one | other, (op.use for op in ops)) == reduce(lambda one, other: one | other, Use)
    assert any(op.kind is not op.base_kind for op in ops if op.method is Method.RESIDUAL)


@pytest.mark.parametrize("number", range(PAIRS))
def test_an_undamaged_delta_is_taken(number: int) -> None:
    pair = pairs()[number]
    assert taken(sealed(pair)) == pair.new


@pytest.mark.parametrize("level", LEVELS)
def test_a_damaged_delta_ends_in_a_refusal_or_in_the_very_file(level: str) -> None:
    ends: Counter[str] = Counter()
    for number, pair in enumerate(pairs()):
        for turn in range(20):
            try:
                found = taken(broken(pair, LEVELS.index(level) + len(LEVELS) * (20 * number + turn)))
            except RefusedError:
                ends["refused"] += 1
                continue
            assert found is None or found == pair.new
            ends["the digest refuses" if found is None else "the very file"] += 1
    assert ends["refused"] > 100
    if level in ("description", "sealed"):  # names and tags fit nothing else
        assert ends["the digest refuses"] == 0
