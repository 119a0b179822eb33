import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import sketches
from shared.sketches import FeatureBaseline

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(values=st.lists(finite, max_size=300))
def test_edges_ascend_without_repeats(values: list[float]) -> None:
    edges = sketches.quantile_edges(values)
    assert list(edges) == sorted(set(edges))
    assert 1 <= len(edges) <= sketches.QUANTILE_BINS + 1


def test_bins_of_the_reference_hold_about_the_same_number() -> None:
    random.seed(1)
    values = [random.gauss(0, 1) for _ in range(20_000)]
    edges = sketches.quantile_edges(values)
    counts, missing = sketches.count(edges, values)
    assert missing == 0
    assert sum(counts) == len(values)
    assert all(count == pytest.approx(len(values) / sketches.QUANTILE_BINS, rel=0.05) for count in counts[1:-1])
    assert counts[0] <= len(values) * 0.002 >= counts[-1]


@given(edges=st.lists(finite, min_size=1, max_size=20, unique=True).map(sorted), value=finite)
def test_a_value_falls_between_its_edges(edges: list[float], value: float) -> None:
    place = sketches.bin_of(edges, value)
    assert place == 0 or edges[place - 1] <= value
    assert place == len(edges) or value < edges[place]


@given(left=st.lists(finite, max_size=50), right=st.lists(finite, max_size=50))
def test_merging_counts_is_counting_together(left: list[float], right: list[float]) -> None:
    edges = (-1.0, 0.0, 2.5)
    counted = sketches.add(sketches.count(edges, left)[0], sketches.count(edges, right)[0])
    assert counted == sketches.count(edges, left + right)[0]


def test_what_is_not_finite_is_missing() -> None:
    assert sketches.count((0.0,), [1.0, math.nan, math.inf, -math.inf]) == ([0, 1], 3)


def test_counts_over_other_bins_are_not_merged() -> None:
    with pytest.raises(ValueError, match="zip"):
        sketches.add([1, 2], [1, 2, 3])


def test_the_digest_names_the_bins() -> None:
    def feature(edges: tuple[float, ...], name: str = "f") -> FeatureBaseline:
        return FeatureBaseline(name=name, group="input", kind="quantity", edges=edges, counts=(0,) * (len(edges) + 1))

    assert feature((0.1, 0.2)).digest == feature((0.1, 0.2), "other").digest
    assert feature((0.1, 0.2)).digest != feature((0.1, 0.2000001)).digest
    assert len(feature((0.1,)).digest) == 16


@given(milliseconds=st.floats(min_value=0.001, max_value=1e6))
def test_a_latency_is_known_within_a_percent(milliseconds: float) -> None:
    found = sketches.merge_latency([{sketches.latency_bin(milliseconds): 1}]).quantile_ms(0.5)
    assert found == pytest.approx(milliseconds, rel=0.0101)


@pytest.mark.parametrize("milliseconds", [0.0, -5.0])
def test_a_latency_of_nothing_has_a_bin_too(milliseconds: float) -> None:
    assert sketches.latency_bin(milliseconds) == sketches.latency_bin(0.001)


def test_latencies_merge_and_give_quantiles() -> None:
    bins = [{sketches.latency_bin(float(ms)): 1} for ms in range(1, 101)]
    merged = sketches.merge_latency(bins)
    assert merged.count == 100
    assert merged.quantile_ms(0.5) == pytest.approx(50, rel=0.03)
    assert merged.quantile_ms(0.95) == pytest.approx(95, rel=0.03)
    assert sketches.merge_latency([]).quantile_ms(0.5) is None
