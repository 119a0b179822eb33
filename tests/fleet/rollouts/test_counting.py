"""The test of counts and what it is fed with: against other computations, under the null, and at size."""

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from fleet.rollouts import counting, habits, trials
from fleet.rollouts.trials import ALL, DESIGNS, Amounts, Doubt, Trial, Trials

COUNTS = st.integers(0, 500)
SHARES = st.floats(0.001, 0.999)


@given(x=COUNTS, k=COUNTS, share=SHARES, tolerance=st.floats(0, 1))
def test_an_interval_adds_the_likelihood_ratio_of_binomial_counts(
    x: int, k: int, share: float, tolerance: float
) -> None:
    found = counting.gains(x, k, share, tolerance=tolerance)
    for ratio, gain in zip(counting.RATIOS, found, strict=True):
        odds = share / (1 - share) * (1 + tolerance)
        even, more = odds / (1 + odds), odds * ratio / (1 + odds * ratio)
        oracle = binom.logpmf(x, x + k, more) - binom.logpmf(x, x + k, even)
        assert gain == pytest.approx(oracle, abs=1e-6 * (1 + x + k))
    log_e = counting.evidence(found)
    assert log_e == pytest.approx(np.log(np.mean(np.exp(found - found.max()))) + found.max(), abs=1e-9)


@given(x=COUNTS, k=COUNTS, share=SHARES)
def test_more_events_on_the_candidate_are_more_evidence_and_more_on_the_control_less(
    x: int, k: int, share: float
) -> None:
    def log_e(x: int, k: int, share: float = share, phi: float = 1.0) -> float:
        return float(counting.evidence(counting.gains(x, k, share, tolerance=0.1, dispersion=phi)))

    assert log_e(x + 1, k) > log_e(x, k) > log_e(x, k + 1)
    assert log_e(x, k, min(0.9995, share * 1.01)) <= log_e(x, k) + 1e-9  # a larger share lets expect more
    if log_e(x, k) > math.log(len(counting.RATIOS)):
        assert log_e(x, k, phi=2.0) < log_e(x, k)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_control_nothing_is_told(share: float) -> None:
    assert counting.evidence(counting.gains(100, 0, share, tolerance=0.1)) == 0.0


@pytest.mark.parametrize("wrong", [(-1, 0, 0.5, 1.0), (0, -1, 0.5, 1.0), (0, 0, 1.5, 1.0), (0, 0, 0.5, 0.9)])
def test_numbers_that_cannot_be_are_a_mistake(wrong: tuple[float, float, float, float]) -> None:
    x, k, share, phi = wrong
    with pytest.raises(ValueError, match="dispersion"):
        counting.gains(x, k, share, tolerance=0.1, dispersion=phi)


def test_looking_after_each_of_400_intervals_rings_no_more_often_than_the_level() -> None:
    rng, level, runs = np.random.default_rng(7), 0.05, 1000
    share = np.full((runs, 400), 0.05)
    events = rng.poisson(30, share.shape)
    mine = rng.binomial(events, counting.tilted(share, 1.1))  # at the very edge of what is tolerated
    log_e = counting.evidence(np.cumsum(counting.gains(mine, events - mine, share, tolerance=0.1), axis=1))
    rang = (log_e >= math.log(1 / level)).any(axis=1).mean()
    assert rang <= level + 3 * math.sqrt(level * (1 - level) / runs)
    assert rang > 0.005  # it is no test that never rings


@given(ended=st.integers(0, 400), part=st.floats(0, 1), usual=st.floats(0.01, 0.5))
def test_failures_against_experience_are_a_likelihood_ratio_too(ended: int, part: float, usual: float) -> None:
    bad = round(part * ended)
    odds = usual / (1 - usual)
    shares = [odds * ratio / (1 + odds * ratio) for ratio in counting.RARE_RATIOS]
    logs = [binom.logpmf(bad, ended, share) - binom.logpmf(bad, ended, usual) for share in shares]
    oracle = max(logs) + math.log(sum(math.exp(it - max(logs)) for it in logs) / len(logs))
    assert counting.against(bad, ended, usual) == pytest.approx(oracle, abs=1e-6 * (1 + ended))


@pytest.mark.parametrize("wrong", [(3, 2, 0.1), (-1, 2, 0.1), (1, 2, 0.0), (1, 2, 1.0)])
def test_impossible_failures_are_a_mistake(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="against"):
        counting.against(*wrong)


def test_chance_and_e_value_stay_numbers() -> None:
    assert (counting.chance(-5.0), counting.chance(math.log(100))) == (1.0, pytest.approx(0.01))
    assert counting.e_value(1e9) == math.exp(700)


def test_a_hundred_thousand_devices_are_one_call() -> None:
    devices = 100_000
    rng = np.random.default_rng(3)
    before, exposure = rng.poisson(3.0, devices).astype(float), np.full(devices, 600.0)
    began = time.process_time()
    due = habits.rates(before, exposure, habits.usual(before, exposure))
    counting.evidence(counting.gains(rng.poisson(1, devices), rng.poisson(20, devices), due / due.max(), tolerance=0.1))
    assert time.process_time() - began < 1.0


# --- habits -------------------------------------------------------------------------------------------------


def test_a_device_without_a_past_is_as_usual_and_one_with_a_long_past_is_itself() -> None:
    found = habits.rates(np.array([0.0, 500.0]), np.array([0.0, 10_000.0]), 0.005)
    assert found == pytest.approx([0.005, 501 / 10_200])


@pytest.mark.parametrize(("burst", "phi"), [(1, 1.0), (3, 3.0), (10, 10.0)])
def test_dispersion_is_the_size_of_bursts(burst: int, phi: float) -> None:
    rng = np.random.default_rng(burst)
    exposure = np.full((200, 168), 360.0)
    rates = 0.005 * np.exp(0.8 * rng.standard_normal((200, 1))) * (1 + 0.3 * np.sin(np.arange(168) / 24 * 2 * np.pi))
    events = burst * rng.poisson(exposure * rates / burst).astype(float)
    found = habits.spread(events, exposure)
    assert habits.dispersion(found.squares.sum(), found.expected.sum()) == pytest.approx(phi, rel=0.1)


def test_days_that_differ_are_not_bursts_when_days_are_taken_out() -> None:
    rng = np.random.default_rng(5)
    exposure = np.full((100, 168), 360.0)
    days = np.repeat(np.exp(0.3 * rng.standard_normal((100, 7))), 24, axis=1)
    events = rng.poisson(exposure * 0.1 * days).astype(float)
    whole, daily = habits.spread(events, exposure), habits.spread(events, exposure, daily=True)
    assert habits.dispersion(whole.squares.sum(), whole.expected.sum()) > 2
    assert habits.dispersion(daily.squares.sum(), daily.expected.sum()) < 1.1


def test_without_events_the_dispersion_is_one() -> None:
    found = habits.spread(np.zeros((2, 24)), np.zeros((2, 24)))
    assert habits.dispersion(found.squares.sum(), found.expected.sum()) == 1.0


def test_slow_is_above_the_90th_percentile() -> None:
    places = np.array([10, 20, 30])
    counts = np.array([[90.0, 5, 5], [89, 11, 0], [0, 0, 1], [0, 0, 0]])
    assert habits.slow_bins(places, counts).tolist() == [10, 20, 30, -1]


# --- trials -------------------------------------------------------------------------------------------------


def test_classes_are_tested_alone_and_together() -> None:
    came = {"errors": {"orin": Amounts(9, 10, 100, 1000, 1.0, 10.0), "pi": Amounts(1, 10, 100, 1000, 1.0, 10.0)}}
    tests = Trials().after(came, {"errors": {"orin": Doubt(2.0)}}, 0.1).tests["errors"]
    assert set(tests) == {ALL, "orin", "pi"}
    assert tests[ALL].seen == Amounts(10, 20, 200, 2000, 2.0, 20.0)
    assert tests["orin"].dispersion == 2.0
    assert tests["orin"].ratio == pytest.approx(9.0)
    assert tests["pi"].log_e < 0 < tests[ALL].log_e


@given(parts=st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5))
def test_intervals_add_up(parts: list[tuple[int, int]]) -> None:
    found = Trials()
    for x, k in parts:
        found = found.after({"errors": {"a": Amounts(x, k, 1, 1, 1.0, 9.0)}}, {}, 0.1)
    whole = counting.gains(sum(x for x, _ in parts), sum(k for _, k in parts), 0.1, tolerance=0.1)
    assert found.tests["errors"][ALL].logs == pytest.approx(whole, abs=1e-6)


def test_the_levels_of_a_kind_add_up_to_the_level() -> None:
    parts = [math.exp(-trials.limit(0.01, scope, 4)) for scope in (ALL, "a", "b", "c", "d")]
    assert sum(parts) == pytest.approx(0.01)


def test_a_ratio_needs_both_sides() -> None:
    assert Trial((0.0,) * len(DESIGNS["errors"].ratios), Amounts(candidate=3, candidate_due=1)).ratio is None


def test_a_short_past_takes_its_share_of_the_evidence() -> None:
    came = {"errors": {"a": Amounts(30, 100, 1, 1, 10.0, 90.0)}}
    sure, unsure = (Trials().after(came, {"errors": {ALL: doubt}}, 0.1) for doubt in (Doubt(), Doubt(1.0, 2.0, 90.0)))
    assert unsure.tests["errors"][ALL].dispersion == pytest.approx(1 + 10 / 2 + 10 / 90)
    assert 0 < unsure.tests["errors"][ALL].log_e < sure.tests["errors"][ALL].log_e


def test_one_canary_with_a_short_past_is_seldom_stopped_for_being_itself() -> None:
    rng, runs, steps = np.random.default_rng(11), 300, 144  # 12 hours, five minutes at a time
    rate = 0.005 * np.exp(0.8 * rng.standard_normal((runs, 5)))
    before, exposure = rng.poisson(rate * 500).astype(float), np.full((runs, 5), 500.0)
    due = 30 * np.array([habits.rates(b, e, habits.usual(b, e)) for b, e in zip(before, exposure, strict=True)])
    events = rng.poisson(rate[..., None] * 30, (runs, 5, steps))
    share = np.broadcast_to((due[:, 0] / due.sum(axis=1))[:, None], (runs, steps))

    def stopped(phi: Any) -> float:
        more = counting.gains(events[:, 0], events[:, 1:].sum(axis=1), share, tolerance=0.1, dispersion=phi)
        log_e = counting.evidence(np.cumsum(more, axis=1))
        return float((log_e >= trials.limit(0.01, ALL, 1)).any(axis=1).mean())

    known = (1 + before[:, :1], 4 + before[:, 1:].sum(axis=1, keepdims=True))
    doubt: Any = Doubt(1.0, *known)  # arithmetic alone: one for each rollout
    assert stopped(doubt.at(due[:, :1] * np.arange(1, steps + 1))) <= 0.03
    assert stopped(np.ones((runs, steps))) > 0.05
