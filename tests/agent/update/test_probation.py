"""Verdicts on a version on probation."""

import math

import pytest

from agent.settings import UpdateSettings
from agent.update import reasons
from agent.update.probation import Fail, Hold, Pass, Performance, Tally, judge

SETTINGS = UpdateSettings(
    probation_seconds=60,
    probation_requests=100,
    probation_limit_seconds=900,
    max_error_ratio=0.01,
    max_latency_ratio=2.0,
    max_accuracy_drop=0.1,
    min_labelled=30,
)


def seen(
    requests: int = 200,
    *,
    latency_ms: float = 4.0,
    errors: dict[str, int] | None = None,
    labelled: int = 0,
    accuracy: float = 1.0,
    crashes: int = 0,
    how: str = "SIGKILL",
) -> Performance:
    tally = Tally()
    bad = [kind for kind, number in (errors or {}).items() for _ in range(number)]
    for number in range(requests):
        tally.answered(latency_ms, bad[number] if number < len(bad) else None)
    for number in range(labelled):
        tally.labelled(correct=number < accuracy * labelled)
    for _ in range(crashes):
        tally.crashed(how)
    return tally.performance


BEFORE = seen(500, labelled=200, accuracy=0.97)


def test_time_and_requests_must_both_be_reached() -> None:
    assert judge(seen(99), BEFORE, elapsed_seconds=70, settings=SETTINGS) == Hold()
    assert judge(seen(100), BEFORE, elapsed_seconds=59, settings=SETTINGS) == Hold()
    assert judge(seen(100), BEFORE, elapsed_seconds=60, settings=SETTINGS) == Pass()


def test_without_traffic_it_passes_at_the_limit() -> None:
    assert judge(seen(0), Performance(), elapsed_seconds=899, settings=SETTINGS) == Hold()
    assert judge(seen(0), Performance(), elapsed_seconds=900, settings=SETTINGS) == Pass()


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (seen(200, errors={"internal": 3}), reasons.PROBATION_ERRORS),
        (seen(200, errors={"timeout": 2, "worker-died": 1}), reasons.PROBATION_ERRORS),
        (seen(200, errors={"not-finite": 3}), reasons.PROBATION_OUTPUT),
        (seen(3, errors={"not-finite": 3}), reasons.PROBATION_OUTPUT),
        (seen(5, crashes=2), reasons.PROBATION_CRASH),
        (seen(5, crashes=1, how="hang"), reasons.PROBATION_CRASH),
        (seen(500, crashes=1, how="SIGSEGV"), reasons.PROBATION_CRASH),
        (seen(40, labelled=40, accuracy=0.5), reasons.PROBATION_ACCURACY),
    ],
)
def test_what_is_clearly_bad_fails_at_once(now: Performance, reason: str) -> None:
    verdict = judge(now, BEFORE, elapsed_seconds=1, settings=SETTINGS)
    assert isinstance(verdict, Fail)
    assert verdict.reason == reason
    assert verdict.detail


@pytest.mark.parametrize(
    "now",
    [
        seen(200, errors={"internal": 2}),  # too few to prove anything
        seen(400, errors={"internal": 4}),  # one in a hundred is allowed
        seen(200, errors={"bad-request": 150}),  # the callers' fault
        seen(200, crashes=1),
        seen(200, crashes=1, how="exit 1"),
        seen(200, latency_ms=8.9),  # five milliseconds more hurt nobody
        seen(200, labelled=40, accuracy=0.9),
    ],
)
def test_what_may_happen_to_a_good_version_passes(now: Performance) -> None:
    assert judge(now, BEFORE, elapsed_seconds=60, settings=SETTINGS) == Pass()


def test_slow_answers_fail_at_the_end_and_only_against_a_known_version() -> None:
    slow = seen(200, latency_ms=30)
    assert judge(slow, BEFORE, elapsed_seconds=10, settings=SETTINGS) == Hold()
    verdict = judge(slow, BEFORE, elapsed_seconds=60, settings=SETTINGS)
    assert isinstance(verdict, Fail)
    assert verdict.reason == reasons.PROBATION_LATENCY
    assert judge(slow, Performance(), elapsed_seconds=60, settings=SETTINGS) == Pass()
    assert judge(slow, seen(20), elapsed_seconds=60, settings=SETTINGS) == Pass()


def test_where_feedback_flows_a_verdict_waits_for_enough_of_it() -> None:
    few = seen(200, labelled=10)
    assert judge(few, BEFORE, elapsed_seconds=60, settings=SETTINGS) == Hold()
    assert judge(few, BEFORE, elapsed_seconds=900, settings=SETTINGS) == Pass()


def test_a_drop_that_may_be_chance_is_watched_until_it_is_certain_or_the_limit() -> None:
    lower = seen(200, labelled=40, accuracy=0.8)
    assert judge(lower, BEFORE, elapsed_seconds=60, settings=SETTINGS) == Hold()
    assert judge(lower, BEFORE, elapsed_seconds=900, settings=SETTINGS) == Pass()
    certain = seen(200, labelled=120, accuracy=0.8)
    assert judge(certain, BEFORE, elapsed_seconds=10, settings=SETTINGS) == Hold()
    verdict = judge(certain, BEFORE, elapsed_seconds=60, settings=SETTINGS)
    assert isinstance(verdict, Fail)
    assert verdict.detail == (
        "accuracy 80.0% over 120 labelled answers; the version before had 97.0% here over 200"
    )  # both counts: how far to trust the numbers


def taken_back(was: float, is_now: float, labels: int) -> float:
    """Exact chance that the last look takes back a version, both versions having so many labels."""
    lost = 0.0
    for before in range(labels + 1):
        for now in range(labels + 1):
            verdict = judge(
                Performance(requests=100, labelled=labels, correct=now),
                Performance(labelled=labels, correct=before),
                elapsed_seconds=60,
                settings=SETTINGS,
            )
            if isinstance(verdict, Fail):
                lost += binomial(before, labels, was) * binomial(now, labels, is_now)
    return lost


def binomial(hits: int, tries: int, share: float) -> float:
    return math.comb(tries, hits) * share**hits * (1 - share) ** (tries - hits)


@pytest.mark.parametrize("accuracy", [0.97, 0.9, 0.8, 0.7])
def test_a_version_as_good_as_the_one_before_is_not_taken_back_by_chance(accuracy: float) -> None:
    assert taken_back(accuracy, accuracy, 40) < 0.01


def test_a_version_that_is_much_worse_is_taken_back_after_few_labels() -> None:
    assert taken_back(0.97, 0.6, 40) > 0.95


def test_a_tally_goes_on_where_it_was_left() -> None:
    tally = Tally(BEFORE)
    tally.answered(4.0, None)
    assert tally.performance.requests == 501
    assert tally.performance.p95_ms == pytest.approx(4.0, rel=0.03)


def test_old_observations_fade() -> None:
    tally = Tally()
    for _ in range(5_000):
        tally.answered(4.0, None)
        tally.labelled(correct=False)
    assert tally.performance.labelled == 2_500
    assert sum(tally.performance.latency.values()) == 2_500


def test_the_first_fault_of_its_own_is_told_by_its_name() -> None:
    tally = Tally()
    for how in ("SIGKILL", "SIGFPE", "hang"):
        tally.crashed(how)
    found = judge(Tally(tally.performance).performance, BEFORE, elapsed_seconds=1, settings=SETTINGS)
    assert found == Fail(reasons.PROBATION_CRASH, "its worker crashed on a request (SIGFPE)")
