"""The verdict on a candidate in the shadow: pass, keep comparing, or fail with a reason.

I/O: none.
"""

from collections.abc import Sequence

from agent.update import reasons
from agent.update.probation import CRASHES, MIN_FAILURES, OWN_FAULTS, Fail, Hold, Pass, Verdict, too_slow
from shared.messages import ShadowFigures
from shared.shadow import Terms, agreement, bounds, in_words, medians_ms


def judge(found: ShadowFigures, terms: Terms, deaths: Sequence[str] = ()) -> Verdict:
    """The verdict on what was `found`; `deaths` are how the candidate's worker ended, each time since the start.

    Agreement is judged once, when there are enough samples. A candidate that stays is judged again and again, and one
    with too few samples on less than was asked for: both fail only where chance cannot be the reason.
    """
    enough = found.samples >= terms.min_samples
    over = found.seconds >= terms.seconds
    failure = _crashes(found, deaths) or _errors(found, terms)
    if failure is None and (enough or over):
        failure = _agreement(found, terms, once=enough and not terms.stay) or _latency(found, terms, enough=enough)
    if failure is not None:
        return failure
    if terms.stay:
        return Hold()
    if enough:
        return Pass()
    return _too_few(found, terms) if over else Hold()


def without(terms: Terms, why: str) -> Verdict:
    """The verdict where nothing can be compared."""
    if terms.when_few == "go-on" and not terms.stay:
        return Pass()
    return Fail(reasons.NoMemoryError.code, f"no room for the candidate beside what serves: {why}")


def _crashes(found: ShadowFigures, deaths: Sequence[str]) -> Fail | None:
    own = next((how for how in deaths if how in OWN_FAULTS), None)
    if own is not None:
        how = "hung on a request" if own == "hang" else f"crashed on a request ({own})"
        return Fail(reasons.SHADOW_CRASH, f"in the shadow its worker {how}; no client noticed")
    if found.crashes < CRASHES:
        return None
    return Fail(reasons.SHADOW_CRASH, f"in the shadow its worker died {found.crashes} times; no client noticed")


def _errors(found: ShadowFigures, terms: Terms) -> Fail | None:
    asked = found.requests + found.failed
    if found.failed < MIN_FAILURES or found.failed <= terms.max_error_ratio * max(asked, terms.min_samples):
        return None
    detail = f"in the shadow it could not answer {found.failed} of {asked} requests; allowed {terms.max_error_ratio:g}"
    return Fail(reasons.SHADOW_ERRORS, detail)


def _agreement(found: ShadowFigures, terms: Terms, *, once: bool) -> Fail | None:
    share = agreement(found)
    if share is None:
        return None
    most = share if once else bounds(found.agreed, found.samples)[1]
    if most >= terms.min_agreement:
        return None
    detail = f"{in_words(found)}; at least {terms.min_agreement:g} must agree with the version that serves"
    return Fail(reasons.SHADOW_DISAGREES, detail)


def _latency(found: ShadowFigures, terms: Terms, *, enough: bool) -> Fail | None:
    medians = medians_ms(found)
    if medians is None or terms.max_latency_ratio is None or not enough:
        return None
    was, is_now = medians
    if not too_slow(is_now, was, ratio=terms.max_latency_ratio):
        return None
    return Fail(
        reasons.SHADOW_SLOW,
        f"one inference takes {is_now:.1f} ms, that of the version that serves {was:.1f} ms on the same requests;"
        f" allowed is {terms.max_latency_ratio:g} times that",
    )


def _too_few(found: ShadowFigures, terms: Terms) -> Verdict:
    match terms.when_few:
        case "go-on":
            return Pass()
        case "hold":
            return Hold()
        case "fail":
            detail = f"{in_words(found)} in {terms.seconds:g} s; {terms.min_samples} were asked for"
            return Fail(reasons.SHADOW_FEW, detail)
