import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from fleet.telemetry import drift
from fleet.telemetry.drift import Pair, Statistics, compare
from shared.sketches import FeatureBaseline, count, quantile_edges

SIDE = st.lists(st.integers(0, 500), min_size=12, max_size=12).filter(lambda counts: sum(counts) > 0)


def one(current: list[int], reference: list[int], widths: list[float] | None = None) -> Statistics:
    return compare([Pair(current, reference, widths or [1.0] * len(current))], 5e-5)[0]


@settings(max_examples=60, deadline=None)
@given(SIDE, SIDE)
def test_every_distance_equals_its_oracle(current: list[int], reference: list[int]) -> None:
    found = one(current, reference)
    a, b = np.array(current, float), np.array(reference, float)
    n, m, bins = a.sum(), b.sum(), len(a)
    p, q = (a + 0.5) / (n + bins / 2), (b + 0.5) / (m + bins / 2)
    both = stats.entropy(p, q) + stats.entropy(q, p)
    assert found.psi == pytest.approx(both, rel=1e-9, abs=1e-12)
    assert found.kl == pytest.approx(stats.entropy(p, q), rel=1e-9, abs=1e-12)
    assert found.psi_corrected == pytest.approx(both - (bins - 1) * (1 / n + 1 / m), rel=1e-9, abs=1e-9)
    assert found.js_distance == pytest.approx(distance.jensenshannon(a / n, b / m), rel=1e-9, abs=1e-7)
    assert found.ks == pytest.approx(
        stats.ks_2samp(np.repeat(range(bins), current), np.repeat(range(bins), reference)).statistic, abs=1e-9
    )
    held = (a + b) > 0
    if held.sum() > 1:
        oracle = stats.chi2_contingency(np.array([a[held], b[held]]), correction=False)
        assert found.chi2 == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
        assert found.p == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-12)
        assert found.dof == oracle.dof
        ranks = stats.kruskal(np.repeat(range(bins), current), np.repeat(range(bins), reference)).statistic
        total = n + m
        assert found.shift**2 * (total - 1) / total == pytest.approx(ranks, rel=1e-7, abs=1e-7)


@given(SIDE, SIDE)
def test_wasserstein_equals_its_oracle_on_the_bins(current: list[int], reference: list[int]) -> None:
    widths = [0.5 + index for index in range(12)]
    places = np.concatenate([[0], np.cumsum(widths)[:-1]])
    oracle = stats.wasserstein_distance(places, places, current, reference)
    assert one(current, reference, widths).wasserstein == pytest.approx(oracle, rel=1e-9, abs=1e-9)


def test_pairs_of_different_lengths_do_not_disturb_each_other() -> None:
    short, long = Pair([3, 9], [5, 5], [1, 1]), Pair([1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1])
    assert compare([short, long, short], 0.01) == (
        *compare([short], 0.01),
        *compare([long], 0.01),
        *compare([short], 0.01),
    )


def test_same_counts_are_no_distance_at_all() -> None:
    found = one([10, 20, 30], [10, 20, 30])
    assert (found.psi, found.kl, found.jsd, found.ks, found.chi2, found.p, found.shift) == (0, 0, 0, 0, 0, 1, 0)


def test_the_calibrated_threshold_is_that_of_the_study() -> None:
    found = one([10] * 10, [70] * 10)
    assert found.psi_limit == pytest.approx(0.405, abs=5e-4)
    assert one([63] * 15 + [55], [438] * 15 + [430]).psi_limit == pytest.approx(0.053, abs=1e-3)


def test_chance_alone_raises_no_alarm_and_leaves_no_bias() -> None:
    rng = np.random.default_rng(1)
    share = np.ones(17) / 17
    pairs = [Pair(rng.multinomial(100, share), rng.multinomial(700, share), [1.0] * 17) for _ in range(4000)]
    found = compare(pairs, 5e-5)
    assert np.mean([it.psi for it in found]) > 0.15  # the seed's number is biased
    assert abs(np.mean([it.psi_corrected for it in found])) < 0.02
    assert sum(it.p < 5e-5 and it.psi_corrected >= 0.2 for it in found) <= 2


def test_a_side_without_samples_and_other_bins_are_misuse() -> None:
    with pytest.raises(ValueError, match="without samples"):
        one([0, 0], [1, 1])
    with pytest.raises(ValueError, match="different bins"):
        compare([Pair([1], [1, 2], [1])], 0.01)
    assert compare([], 0.01) == ()


def test_the_sign_of_the_shift_tells_the_direction() -> None:
    assert one([90, 10], [10, 90]).shift < 0 < one([10, 90], [90, 10]).shift


def test_widths_are_in_standard_deviations_of_the_reference() -> None:
    values = np.random.default_rng(2).normal(5, 3, 20000)
    edges = quantile_edges(list(values))
    counts, _ = count(edges, values)
    feature = FeatureBaseline(name="f", group="input", kind="quantity", edges=edges, counts=tuple(counts))
    moved, _ = count(edges, values + 1.5)
    found = one(moved, counts, list(drift.widths(feature)))
    assert found.wasserstein == pytest.approx(0.5, rel=0.15)
    assert all(math.isfinite(width) and width >= 0 for width in drift.widths(feature))


def test_widths_of_classes_and_of_constant_features_are_harmless() -> None:
    classes = FeatureBaseline(name="c", group="class", kind="category", edges=(0.5, 1.5), counts=(1, 2, 3))
    assert drift.widths(classes) == (1.0, 1.0, 1.0)
    flat = FeatureBaseline(name="f", group="input", kind="quantity", edges=(0.0,), counts=(0, 9))
    assert drift.widths(flat) == (1.0, 1.0)


def test_a_large_fleet_is_compared_block_by_block() -> None:
    pairs = [Pair([1 + number % 7, 9], [5, 5], [1, 1]) for number in range(drift.BLOCK + 3)]
    found = compare(pairs, 0.01)
    assert len(found) == len(pairs)
    assert found[7] == found[0] == found[7 * (drift.BLOCK // 7)]
