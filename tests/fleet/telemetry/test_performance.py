"""Accuracy, precision, recall and latency: intervals, and what counts as worse."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from fleet.telemetry.performance import Interval, Limits, Tally, Z, losses, scores, wilson
from shared.sketches import Latency, latency_bin

LIMITS = Limits(accuracy=0.05, precision=0.05, recall=0.05, latency=0.2, degradation=0.1, min_samples=100)
REFERENCE = {"accuracy": 0.95, "precision": 0.95, "recall": 0.95}


@given(samples=st.integers(1, 10**6), share=st.floats(0, 1))
def test_the_interval_is_that_of_scipy(samples: int, share: float) -> None:
    hits = round(share * samples)
    found = wilson(hits, samples)
    confidence = float(2 * norm.cdf(Z) - 1)
    oracle = binomtest(hits, samples).proportion_ci(confidence, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    assert found.value == hits / samples


def test_without_samples_there_is_no_interval_and_more_hits_than_samples_are_a_mistake() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)


def labelled(matrix: np.ndarray) -> Tally:
    pairs = {(int(t), int(p)): int(n) for (t, p), n in np.ndenumerate(matrix) if n}
    return Tally(int(matrix.sum()), int(np.trace(matrix)), Counter(pairs))


def test_scores_are_the_means_over_the_classes() -> None:
    matrix = np.array([[90, 10, 0], [5, 40, 5], [0, 0, 50]])
    found = scores(labelled(matrix))
    assert isinstance(found.accuracy, Interval)
    assert isinstance(found.precision, Interval)
    assert isinstance(found.recall, Interval)
    assert found.accuracy.value == pytest.approx(180 / 200)
    assert found.precision.value == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(axis=0)))
    assert found.recall.value == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(axis=1)))
    for one in (found.accuracy, found.precision, found.recall):
        assert 0 <= one.low < one.value < one.high <= 1


def test_the_interval_of_the_recall_covers_the_truth() -> None:
    rng, shares = np.random.default_rng(3), np.array([0.9, 0.7, 0.97, 0.5])
    missed = 0
    for _ in range(400):
        hits = rng.binomial(60, shares)
        matrix = np.diag(hits)
        matrix[np.arange(4), (np.arange(4) + 1) % 4] += 60 - hits
        recall = scores(labelled(matrix)).recall
        assert recall is not None
        missed += not recall.low <= shares.mean() <= recall.high
    assert missed <= 4  # of 400; 0.2 % each is promised


def test_classes_in_the_last_place_have_no_precision_of_their_own() -> None:
    found = scores(Tally(10, 4, Counter({(31, 31): 10})))
    assert found.accuracy is not None
    assert found.accuracy.value == 0.4
    assert (found.precision, found.recall) == (None, None)


def worse(tally: Tally, before: Latency | None = None) -> list[str]:
    return [loss.metric for loss in losses(LIMITS, tally, REFERENCE, before or Latency({}))]


def test_a_certain_loss_is_told_and_an_uncertain_one_is_not() -> None:
    def right(share: float, number: int) -> Tally:
        hits = round(share * number)
        return labelled(np.array([[hits, number - hits], [number - hits, hits]]))

    assert worse(right(0.80, 2000)) == ["accuracy", "precision", "recall"]
    assert worse(right(0.80, 49)) == []  # too few
    assert worse(right(0.87, 75)) == []  # it may be chance
    assert worse(right(0.91, 100_000)) == []  # certain, but within what is allowed
    assert worse(right(0.99, 100_000)) == []


def test_without_a_reference_nothing_is_worse() -> None:
    assert list(losses(LIMITS, labelled(np.array([[0, 500]])), {}, Latency({}))) == []


def latencies(scale: float, number: int, seed: int = 1) -> Counter[int]:
    rng = np.random.default_rng(seed)
    return Counter(latency_bin(float(ms)) for ms in scale * rng.lognormal(1.5, 0.3, number))


@pytest.mark.parametrize(("scale", "number", "told"), [(1.0, 5000, 0), (1.1, 5000, 0), (1.5, 5000, 1), (1.5, 40, 0)])
def test_latency_is_compared_with_the_devices_own_past(scale: float, number: int, told: int) -> None:
    tally = Tally(latency=latencies(scale, number))
    found = list(losses(LIMITS, tally, REFERENCE, Latency(latencies(1.0, 20_000, seed=2))))
    assert [loss.metric for loss in found] == ["latency"] * told
    if found:
        assert found[0].value / found[0].reference == pytest.approx(1.5, rel=0.1)
        assert "was" in found[0].text


@pytest.mark.parametrize(("share", "told"), [(0.05, ["median latency"]), (0.3, [])])
def test_a_median_that_grows_by_more_than_the_allowed_share_is_a_loss_before_the_p95_is(
    share: float, told: list[str]
) -> None:
    limits, before = replace(LIMITS, degradation=share), Latency(latencies(1.0, 20_000, seed=2))
    found = list(losses(limits, Tally(latency=latencies(1.15, 5000)), {}, before))
    assert [loss.metric for loss in found] == told
    if found:
        assert found[0].value / found[0].reference == pytest.approx(1.15, rel=0.05)
        assert found[0].text.startswith("median latency is")


@pytest.mark.parametrize(("share", "told"), [(0.1, ["accuracy"]), (0.9, [])])
def test_a_share_of_accuracy_may_be_lost_where_the_difference_may(share: float, told: list[str]) -> None:
    """Of an accuracy of 0.95 a tenth is 0.095; the difference may be 0.9."""
    limits = replace(LIMITS, accuracy=0.9, precision=0.9, recall=0.9, degradation=share)
    found = losses(limits, labelled(np.array([[750, 250], [250, 750]])), {"accuracy": 0.95}, Latency({}))
    assert [loss.metric for loss in found] == told


def test_a_loss_says_by_how_much_it_is_beyond_its_limit() -> None:
    [loss, *_] = losses(LIMITS, labelled(np.array([[750, 250], [0, 0]])), REFERENCE, Latency({}))
    assert (loss.metric, loss.excess) == ("accuracy", pytest.approx(4.0))
    assert loss.text.startswith(
        "accuracy is 75.0%, it was 95.0% on the reference data (1000 labelled answers; at least"
    )
