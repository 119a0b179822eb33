import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fleet.telemetry import components

SIDE = st.lists(st.integers(0, 500), min_size=9, max_size=9).filter(lambda counts: sum(counts) > 0)


def one(current: list[int], reference: list[int]) -> components.Components:
    return components.split(np.array([current], float), np.array([reference], float))


@settings(max_examples=80, deadline=None)
@given(SIDE, SIDE)
def test_location_scale_and_chi_square_equal_their_oracles(current: list[int], reference: list[int]) -> None:
    found = one(current, reference)
    a, b = np.array(current, float), np.array(reference, float)
    held = (a + b) > 0
    n, m = a.sum(), b.sum()
    if held.sum() < 2:
        assert (found.chi2[0], found.v1[0], found.v2[0]) == (0, 0, 0)
        return
    oracle = stats.chi2_contingency(np.array([a[held], b[held]]), correction=False)
    assert found.chi2[0] == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
    assert found.dof[0] == oracle.dof
    ranks = stats.kruskal(np.repeat(range(9), current), np.repeat(range(9), reference)).statistic
    assert found.v1[0] ** 2 * (n + m - 1) / (n + m) == pytest.approx(ranks, rel=1e-9, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=9, max_size=9), SIDE)
def test_the_components_add_up_to_chi_square(current: list[int], reference: list[int]) -> None:
    a, b = np.array(current, float), np.array(reference, float)
    n, m = a.sum(), b.sum()
    shares = (a + b) / (n + m)
    every = components.polynomials(shares, len(a) - 1)
    v = [np.sqrt(n * m / (n + m)) * ((a / n - b / m) * g).sum() for g in every]
    found = one(current, reference)
    assert found.chi2[0] == pytest.approx(sum(value**2 for value in v), rel=1e-9, abs=1e-9)
    assert found.v1[0] == pytest.approx(v[0], rel=1e-9, abs=1e-9)
    assert found.v2[0] == pytest.approx(v[1], rel=1e-9, abs=1e-9)
    assert found.residual[0] == pytest.approx(sum(value**2 for value in v[2:]), rel=1e-9, abs=1e-8)
    for left in (np.ones(9), *every):
        for right in every:
            assert (left * right * shares).sum() == pytest.approx(float(left is right), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(300, 5000), st.integers(300, 5000))
def test_a_tail_is_an_exact_binomial_test(a: int, b: int, n: int, m: int) -> None:
    found = components.tail(*(np.array([float(it)]) for it in (a, b, n, m, 1)))
    oracle = stats.binomtest(a, a + b, n / (n + m), alternative="greater").pvalue if a + b else 1.0
    assert found[0] == pytest.approx(oracle, rel=1e-9)


def test_signs_tell_up_and_wide() -> None:
    assert one([1, 1, 1, 9, 9], [5, 5, 5, 5, 5]).v1[0] > 0 > one([9, 9, 1, 1, 1], [5, 5, 5, 5, 5]).v1[0]
    assert one([9, 1, 1, 1, 9], [5, 5, 5, 5, 5]).v2[0] > 0 > one([1, 5, 9, 5, 1], [5, 5, 5, 5, 5]).v2[0]


def test_an_empty_side_has_no_components() -> None:
    found = one([0, 0, 0], [1, 2, 3])
    assert (found.samples[0], found.v1[0], found.v2[0], found.chi2[0], found.dof[0]) == (0, 0, 0, 0, 0)
    assert len(components.split(np.zeros((0, 4)), np.zeros((0, 4))).v1) == 0


def test_without_a_difference_components_are_standard_normal() -> None:
    rng = np.random.default_rng(3)
    share = np.full(16, 1 / 16)
    found = components.split(rng.multinomial(300, share, 20000) * 1.0, rng.multinomial(2100, share, 20000) * 1.0)
    for values in (found.v1, found.v2):
        assert abs(values.mean()) < 0.03
        assert values.std() == pytest.approx(1, abs=0.03)
    assert found.residual.mean() == pytest.approx(13, rel=0.03)
