"""Does the release do harm? Every condition is judged on its own, with the value that it was judged on.

Fixed limits are guard rails that need a minimum of cases; comparisons with the version before are in `comparing`.
`decide` knows nothing but `numbers.Numbers`: the same numbers give the same verdict, today and when it is replayed.

I/O: none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from fleet.rollouts import comparing
from fleet.rollouts.checks import Check as Check
from fleet.rollouts.checks import Result as Result
from fleet.rollouts.numbers import Numbers, count
from fleet.rollouts.states import TIMED_OUT, Criterion, Evidence, Rollout
from fleet.telemetry.performance import Z, wilson
from shared.messages import Phase

#: One device may differ for reasons of its own.
MIN_MISMATCHES: Final = 2


def judge(rollout: Rollout, evidence: Evidence, now: datetime) -> tuple[Check, ...]:
    """All conditions, in the order in which they are shown."""
    return decide(count(rollout, evidence, now))


def decide(numbers: Numbers) -> tuple[Check, ...]:
    """All conditions on these numbers."""
    known = (
        failures(numbers),
        comparing.usual_failures(numbers),
        success(numbers),
        golden(numbers),
        errors(numbers),
        comparing.trial(numbers, "errors"),
        latency(numbers),
        comparing.trial(numbers, "slow"),
        accuracy(numbers),
        comparing.trial(numbers, "wrong"),
        drift(numbers),
        restarts(numbers),
        comparing.trial(numbers, "crashes"),
        silence(numbers),
        webhook(numbers),
        shadow(numbers),
    )
    return tuple(check for check in known if check is not None)


def worst(checks: Sequence[Check]) -> Result:
    """FAIL before WAIT before PASS."""
    found = {check.result for check in checks}
    return next((result for result in (Result.FAIL, Result.WAIT) if result in found), Result.PASS)


def failures(numbers: Numbers) -> Check:
    """Devices that ended badly, by kind, over those that ended at all: silence counts once it is timed out."""
    bad, ended = numbers.bad or {}, numbers.ended
    total = sum(bad.values())
    ratio = total / ended if ended else None
    limit = min((it.ratio for it in numbers.limits.criteria if it.kind == "any"), default=None)
    for criterion in numbers.limits.criteria:
        alike = total if criterion.kind == "any" else bad.get(criterion.kind, 0)
        if ended >= criterion.minimum and alike > criterion.ratio * ended:
            first = (numbers.first or {}).get(criterion.kind, "")
            return Check("failures", Result.FAIL, ratio, limit, "ratio", detail=_blame(criterion, alike, ended, first))
    if not ended:
        return Check("failures", Result.WAIT, None, limit, "ratio", detail="no device has ended yet")
    return Check("failures", Result.PASS, ratio, limit, "ratio", detail=f"{total} of {ended} devices failed")


def _blame(criterion: Criterion, alike: int, ended: int, first: str) -> str:
    verb = {
        str(Phase.ROLLED_BACK): "took the release back by themselves",
        str(Phase.REFUSED): "refused the release",
        TIMED_OUT: "did not finish in time",
        str(Phase.CANCELLED): "were cancelled",
    }.get(criterion.kind, "failed")
    return f"{alike} of {ended} devices {verb}; {first}"


def success(numbers: Numbers) -> Check:
    """Enough devices of the released waves have it: a wave in which nothing arrived never grows."""
    total, done, least = numbers.released, numbers.committed, numbers.limits.min_success_ratio
    ratio = done / total if total else None
    result = Result.WAIT if not numbers.over else Result.PASS if done >= least * total else Result.FAIL
    return Check("success", result, ratio, least, "ratio", detail=f"{done} of {total} devices have the release")


def golden(numbers: Numbers) -> Check | None:
    """Devices on which the release gives the golden outputs; None before any was examined."""
    known = wilson(numbers.mismatched, numbers.examined, z=1.645)
    if known is None:
        return None
    least = numbers.limits.min_golden_ratio
    bad = numbers.mismatched >= MIN_MISMATCHES and 1 - known.low < least
    detail = f"golden outputs on {numbers.examined - numbers.mismatched} of {numbers.examined} devices"
    return Check("golden agreement", _of(bad), 1 - known.value, least, "ratio", detail=detail)


def errors(numbers: Numbers) -> Check:
    """Failed requests of the new version: beyond the limit for certain (Wilson's lower bound)."""
    now, limit = numbers.candidate, numbers.limits.max_error_ratio
    reference, known = numbers.control.error_ratio, wilson(min(now.failed, now.requests), now.requests)
    if known is None or now.requests < numbers.limits.min_requests:
        detail = f"{now.requests} of {numbers.limits.min_requests} requests"
        return Check("errors", Result.WAIT, now.error_ratio, limit, "ratio", reference, detail)
    detail = f"{known.value:.2%} of {now.requests} requests failed, at least {known.low:.2%} (limit {limit:.2%})"
    return Check("errors", _of(known.low > limit), known.value, limit, "ratio", reference, detail)


def latency(numbers: Numbers) -> Check:
    """95 of 100 requests are answered within this."""
    now, limit, reference = numbers.candidate, numbers.limits.max_latency_ms, numbers.control.p95_ms
    if now.p95_ms is None or now.requests < numbers.limits.min_requests:
        detail = f"{now.requests} of {numbers.limits.min_requests} requests"
        return Check("latency p95", Result.WAIT, now.p95_ms, limit, "ms", reference, detail)
    detail = f"p95 {now.p95_ms:.1f} ms (limit {limit:g} ms)"
    return Check("latency p95", _of(now.p95_ms > limit), now.p95_ms, limit, "ms", reference, detail)


def accuracy(numbers: Numbers) -> Check | None:
    """Answers that feedback calls right, against the reference data; None without feedback or reference."""
    now, reference = numbers.candidate, numbers.accuracy
    known = wilson(min(now.correct, now.labelled), now.labelled, Z)
    if reference is None or known is None:
        return None
    limit = reference - numbers.limits.max_accuracy_loss
    if now.labelled < numbers.limits.min_labelled:
        detail = f"{now.labelled} of {numbers.limits.min_labelled} labelled answers"
        return Check("accuracy", Result.PASS, known.value, limit, "ratio", reference, detail)
    detail = (
        f"{known.value:.1%} of {now.labelled} labelled answers are right, {known.low:.1%} to {known.high:.1%} for"
        f" certain; {reference:.1%} on the reference data"
    )
    return Check("accuracy", _of(known.high < limit), known.value, limit, "ratio", reference, detail)


def drift(numbers: Numbers) -> Check:
    """Distributions of the new version against its own reference data: the calibrated alarm, and large enough."""
    sign, limit = numbers.drift, numbers.limits.max_psi
    if sign is None:
        return Check("drift PSI", Result.WAIT, None, limit, "psi", detail="collecting samples")
    alarm = ", the calibrated alarm rings" if sign.drifted else ""
    detail = f"{sign.feature} on {sign.device}: PSI {sign.psi:.2f} (limit {limit:.2f}){alarm}"
    return Check("drift PSI", _of(sign.drifted and sign.psi >= limit), sign.psi, limit, "psi", detail=detail)


def restarts(numbers: Numbers) -> Check:
    """Worker processes of the new version that died, on the device where most did."""
    worst_one, limit = numbers.candidate.restarts, numbers.limits.max_restarts
    detail = f"{worst_one} restarts of the inference worker on one device (limit {limit})"
    reference = float(numbers.control.restarts)
    return Check("restarts", _of(worst_one > limit), float(worst_one), float(limit), "count", reference, detail)


def silence(numbers: Numbers) -> Check:
    """Devices that took the release and are not heard of any more: a dead device reports no error."""
    limits, took = numbers.limits, numbers.took
    if not took:
        return Check("silence", Result.WAIT, None, limits.max_silent_ratio, "ratio", detail="no device has it yet")
    ratio = numbers.silent / took
    detail = f"{numbers.silent} of {took} devices with the release are silent for {limits.silence_seconds:g} s"
    return Check(
        "silence", _of(ratio > limits.max_silent_ratio), ratio, limits.max_silent_ratio, "ratio", detail=detail
    )


def webhook(numbers: Numbers) -> Check | None:
    """What somebody outside says of this wave; None unless the rollout names one. To wait is to hold the wave."""
    hook, said = numbers.limits.webhook, numbers.hook
    if hook is None:
        return None
    if said is None or said.wave != numbers.wave:
        return Check("webhook", Result.WAIT, None, None, "count", detail="not asked about this wave yet", holds=True)
    given_up = numbers.at - said.since >= timedelta(seconds=hook.give_up_seconds)
    if said.result == "wait" and given_up and hook.on_limit == "fail":
        detail = f"no pass within {hook.give_up_seconds:g} s; last: {said.reason}"
        return Check("webhook", Result.FAIL, None, None, "count", detail=detail, holds=True)
    return Check("webhook", Result(said.result), None, None, "count", detail=said.reason, holds=True)


def shadow(numbers: Numbers) -> Check | None:
    """Agreement with the version before, where devices compared the two; None where nothing is compared."""
    found = numbers.shadow
    if found is None:
        return None
    result, holds = Result(found.result), found.required
    return Check("shadow agreement", result, found.value, found.limit, "ratio", detail=found.detail, holds=holds)


def _of(bad: bool) -> Result:
    return Result.FAIL if bad else Result.PASS
