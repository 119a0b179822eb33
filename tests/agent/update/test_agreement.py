"""The verdict on a candidate in the shadow."""

import math

import pytest

from agent.update.agreement import judge, without
from agent.update.probation import Fail, Hold, Pass
from shared.messages import ShadowFigures
from shared.shadow import Terms, agreement, bounds, in_words, medians_ms, plus
from shared.sketches import latency_bin

TERMS = Terms(min_samples=100, min_agreement=0.9, seconds=60)


def figures(samples: int = 100, agreed: int = 95, **more: object) -> ShadowFigures:
    return ShadowFigures.model_validate({"requests": samples, "samples": samples, "agreed": agreed, **more})


def terms(**changes: object) -> Terms:
    return TERMS.model_copy(update=changes)


def test_it_is_compared_until_there_are_enough_samples() -> None:
    assert judge(figures(99, 0), TERMS) == Hold()
    assert judge(figures(100, 90), TERMS) == Pass()
    assert judge(figures(100, 90, seconds=1), TERMS) == Pass()


def test_too_little_agreement_fails() -> None:
    found = judge(figures(100, 89), TERMS)
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_DISAGREES"
    assert "89.00 % agree" in found.detail


def test_a_slower_candidate_fails_beyond_the_ratio_and_what_nobody_notices() -> None:
    def timed(was: float, is_now: float) -> ShadowFigures:
        return figures(serving={latency_bin(was): 100}, candidate={latency_bin(is_now): 100})

    assert judge(timed(1.0, 5.0), terms(max_latency_ratio=2.0)) == Pass()  # 4 ms more
    found = judge(timed(10.0, 21.0), terms(max_latency_ratio=2.0))
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_SLOW"
    assert judge(timed(10.0, 21.0), terms(max_latency_ratio=None)) == Pass()


@pytest.mark.parametrize(("death", "word"), [("hang", "hung"), ("SIGSEGV", "SIGSEGV")])
def test_one_crash_of_its_own_fails_at_once(death: str, word: str) -> None:
    found = judge(figures(1, 1, crashes=1), TERMS, [death])
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_CRASH"
    assert word in found.detail


def test_a_crash_that_others_may_have_caused_fails_at_the_second_time() -> None:
    assert judge(figures(1, 1, crashes=1), TERMS, ["SIGKILL"]) == Hold()
    found = judge(figures(1, 1, crashes=2), TERMS, ["SIGKILL"])
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_CRASH"


def test_requests_that_it_cannot_answer_fail_it() -> None:
    assert judge(figures(100, 100, failed=2), TERMS) == Pass()
    found = judge(figures(10, 10, failed=3), TERMS)
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_ERRORS"


def test_too_few_samples_at_the_limit_are_decided_by_the_policy() -> None:
    few = figures(10, 10, seconds=60)
    assert judge(few, TERMS) == Pass()
    assert judge(few, terms(when_few="hold")) == Hold()
    found = judge(few, terms(when_few="fail"))
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_FEW"
    assert judge(figures(0, 0, seconds=60), TERMS) == Pass()


def test_few_samples_that_cannot_be_chance_fail_whatever_the_policy_says() -> None:
    assert judge(figures(10, 8, seconds=60), TERMS) == Pass()
    found = judge(figures(10, 1, seconds=60), TERMS)
    assert isinstance(found, Fail)
    assert found.reason == "E_SHADOW_DISAGREES"


def test_a_candidate_that_stays_never_passes_by_itself_and_fails_only_for_certain() -> None:
    stays = terms(stay=True)
    assert judge(figures(1000, 1000, seconds=1e6), stays) == Hold()
    assert judge(figures(100, 89, seconds=10), stays) == Hold()
    assert isinstance(judge(figures(10_000, 8900), stays), Fail)


def test_without_room_for_two_versions_the_policy_decides() -> None:
    assert without(TERMS, "memory is short") == Pass()
    for other in (terms(when_few="fail"), terms(when_few="hold"), terms(stay=True)):
        found = without(other, "memory is short")
        assert isinstance(found, Fail)
        assert found.reason == "E_MEMORY"


def test_figures_add_up() -> None:
    one = figures(10, 9, serving={1: 2}, candidate={3: 4}, difference=0.5, dropped=1, seconds=2)
    two = figures(5, 5, serving={1: 1, 2: 1}, candidate={}, difference=0.2, skipped=3, crashes=1, failed=1, seconds=3)
    both = plus(one, two)
    assert both == figures(
        15, 14, serving={1: 3, 2: 1}, candidate={3: 4}, difference=0.5, dropped=1, skipped=3, crashes=1, failed=1,
        seconds=5,
    )  # fmt: skip
    assert plus(one, ShadowFigures()) == one
    assert agreement(both) == 14 / 15
    assert agreement(ShadowFigures()) is None
    assert medians_ms(ShadowFigures()) is None
    assert in_words(both).startswith("15 compared, 93.33 % agree, ")
    assert in_words(both).endswith("1 failed, 1 crashed, 1 dropped, 3 skipped")
    assert in_words(ShadowFigures()) == "0 compared"


def test_the_bounds_hold_the_share_and_close_in_on_it() -> None:
    assert bounds(0, 0) == (0.0, 1.0)
    low, high = bounds(90, 100)
    for bound in (low, high):  # Wilson: shares from which 90 of 100 is as far as 5 % of the samples are
        assert abs(0.9 - bound) / math.sqrt(bound * (1 - bound) / 100) == pytest.approx(1.645, abs=1e-3)
    near = bounds(9000, 10_000)
    assert low < near[0] < 0.9 < near[1] < high
    assert bounds(100, 100)[1] == 1.0
