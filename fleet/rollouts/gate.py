"""Does the release do harm? Every condition is judged on its own, with the value that it was judged on.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from fleet.rollouts.states import ENDED, TIMED_OUT, Criterion, Evidence, Limits, Member, Rollout
from shared.messages import Phase


class Result(StrEnum):
    PASS = "pass"  # noqa: S105  # a verdict
    WAIT = "wait"  # cannot be judged yet
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition. `detail` is a sentence for people; on FAIL it becomes the reason of the rollout."""

    name: str
    result: Result
    value: float | None
    limit: float | None
    unit: str  # ratio, ms, psi, count
    reference: float | None = None
    detail: str = ""


def judge(rollout: Rollout, evidence: Evidence, now: datetime) -> tuple[Check, ...]:
    """All conditions, in the order in which they are shown."""
    limits = rollout.limits
    released = [member for member in evidence.members if member.wave <= rollout.wave and not member.preempted]
    return (
        failures(limits, released),
        success(limits, released),
        errors(limits, evidence),
        latency(limits, evidence),
        drift(limits, evidence),
        restarts(limits, evidence),
        silence(limits, released, now),
    )


def worst(checks: Sequence[Check]) -> Result:
    """FAIL before WAIT before PASS."""
    found = {check.result for check in checks}
    return next((result for result in (Result.FAIL, Result.WAIT) if result in found), Result.PASS)


def failures(limits: Limits, released: Sequence[Member]) -> Check:
    """Devices that ended badly, by kind, over those that ended at all: silence counts once it is timed out."""
    ended = [member for member in released if member.touched and member.forward in ENDED]
    bad = [member for member in ended if member.forward != Phase.COMMITTED]
    ratio = len(bad) / len(ended) if ended else None
    limit = min((criterion.ratio for criterion in limits.criteria if criterion.kind == "any"), default=None)
    for criterion in limits.criteria:
        alike = [member for member in bad if criterion.kind in ("any", member.forward)]
        if len(ended) >= criterion.minimum and len(alike) > criterion.ratio * len(ended):
            return Check("failures", Result.FAIL, ratio, limit, "ratio", detail=_blame(criterion, alike, len(ended)))
    if not ended:
        return Check("failures", Result.WAIT, None, limit, "ratio", detail="no device has ended yet")
    detail = f"{len(bad)} of {len(ended)} devices failed"
    return Check("failures", Result.PASS, ratio, limit, "ratio", detail=detail)


def _blame(criterion: Criterion, alike: Sequence[Member], ended: int) -> str:
    verb = {
        str(Phase.ROLLED_BACK): "took the release back by themselves",
        str(Phase.REFUSED): "refused the release",
        TIMED_OUT: "did not finish in time",
        str(Phase.CANCELLED): "were cancelled",
    }.get(criterion.kind, "failed")
    first = alike[0]
    because = ": ".join(filter(None, (first.outcome_reason or first.reason, first.outcome_detail or first.detail)))
    return f"{len(alike)} of {ended} devices {verb}; {first.device}: {because or first.forward}"


def success(limits: Limits, released: Sequence[Member]) -> Check:
    """Enough devices of the released waves have it: a wave in which nothing arrived never grows."""
    total, done = len(released), sum(member.forward == Phase.COMMITTED for member in released)
    ratio = done / total if total else None
    over = total > 0 and all(member.ended for member in released)
    result = Result.WAIT if not over else Result.PASS if done >= limits.min_success_ratio * total else Result.FAIL
    detail = f"{done} of {total} devices have the release"
    return Check("success", result, ratio, limits.min_success_ratio, "ratio", detail=detail)


def errors(limits: Limits, evidence: Evidence) -> Check:
    """Failed requests of the new version."""
    now, before = evidence.candidate, evidence.control
    value, reference = now.error_ratio, before.error_ratio
    if value is None or now.requests < limits.min_requests:
        detail = f"{now.requests} of {limits.min_requests} requests"
        return Check("errors", Result.WAIT, value, limits.max_error_ratio, "ratio", reference, detail)
    bad = value > limits.max_error_ratio
    detail = f"{value:.2%} of {now.requests} requests failed (limit {limits.max_error_ratio:.2%})"
    return Check(
        "errors", Result.FAIL if bad else Result.PASS, value, limits.max_error_ratio, "ratio", reference, detail
    )


def latency(limits: Limits, evidence: Evidence) -> Check:
    """95 of 100 requests are answered within this."""
    now, reference = evidence.candidate, evidence.control.p95_ms
    if now.p95_ms is None or now.requests < limits.min_requests:
        detail = f"{now.requests} of {limits.min_requests} requests"
        return Check("latency p95", Result.WAIT, now.p95_ms, limits.max_latency_ms, "ms", reference, detail)
    bad = now.p95_ms > limits.max_latency_ms
    detail = f"p95 {now.p95_ms:.1f} ms (limit {limits.max_latency_ms:g} ms)"
    return Check(
        "latency p95", Result.FAIL if bad else Result.PASS, now.p95_ms, limits.max_latency_ms, "ms", reference, detail
    )


def drift(limits: Limits, evidence: Evidence) -> Check:
    """Distributions of the new version against its own reference data."""
    sign = evidence.drift
    if sign is None:
        return Check("drift PSI", Result.WAIT, None, limits.max_psi, "psi", detail="collecting samples")
    bad = sign.drifted and sign.psi >= limits.max_psi
    detail = f"{sign.feature} on {sign.device}: PSI {sign.psi:.2f} (limit {limits.max_psi:.2f})"
    return Check("drift PSI", Result.FAIL if bad else Result.PASS, sign.psi, limits.max_psi, "psi", detail=detail)


def restarts(limits: Limits, evidence: Evidence) -> Check:
    """Worker processes of the new version that died, on the device where most did."""
    count = evidence.candidate.restarts
    result = Result.FAIL if count > limits.max_restarts else Result.PASS
    detail = f"{count} restarts of the inference worker on one device (limit {limits.max_restarts})"
    reference = float(evidence.control.restarts)
    return Check("restarts", result, float(count), float(limits.max_restarts), "count", reference, detail)


def silence(limits: Limits, released: Sequence[Member], now: datetime) -> Check:
    """Devices that took the release and are not heard of any more: a dead device reports no error."""
    took = [member for member in released if member.forward == Phase.COMMITTED and member.active]
    latest = now - timedelta(seconds=limits.silence_seconds)
    silent = [member for member in took if member.seen_at is not None and member.seen_at < latest]
    if not took:
        return Check("silence", Result.WAIT, None, limits.max_silent_ratio, "ratio", detail="no device has it yet")
    ratio = len(silent) / len(took)
    detail = f"{len(silent)} of {len(took)} devices with the release are silent for {limits.silence_seconds:g} s"
    bad = ratio > limits.max_silent_ratio
    return Check("silence", Result.FAIL if bad else Result.PASS, ratio, limits.max_silent_ratio, "ratio", detail=detail)
