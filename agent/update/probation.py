"""Health of a version on probation: pass, keep watching, or fail with a reason.

Latency and accuracy are compared with the version before on this very device, so that a slow board
or hard light is not held against a new model.

I/O: none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.settings import UpdateSettings
from agent.update import reasons
from shared.sketches import Latency, latency_bin

MIN_FAILURES: Final = 3  # fewer prove nothing
MIN_LATENCIES: Final = 50  # on each side, before p95 is compared
LATENCY_SLACK_MS: Final = 5.0  # below this much more nobody is hurt, whatever the ratio
CRASHES: Final = 2  # that others may have caused: memory ran out, somebody ended the process
#: Ends of a worker that only what it computes can have caused; one proves it (ADR 16).
OWN_FAULTS: Final = frozenset({"hang", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS"})
#: How many standard errors a drop in accuracy must lie beyond what is allowed: at each of many looks, and at the last.
MANY_LOOKS: Final = 2.0
ONE_LOOK: Final = 1.64
_NOT_OURS: Final = frozenset({"bad-request"})  # the caller's fault
_KEPT: Final = 5_000  # beyond this many, old observations count half


@dataclass(frozen=True, slots=True)
class Performance:
    """What one version did on this device."""

    requests: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)  # kind -> count
    latency: Mapping[int, int] = field(default_factory=dict)  # sketches.latency_bin -> count
    labelled: int = 0
    correct: int = 0
    crashes: int = 0
    fault: str = ""  # how its worker ended by its own fault, the first time that it did

    @property
    def failures(self) -> int:
        """Requests that failed through no fault of the caller."""
        return sum(number for kind, number in self.errors.items() if kind not in _NOT_OURS)

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of latency; None below the minimum count."""
        found = Latency(self.latency)
        return found.quantile_ms(0.95) if found.count >= MIN_LATENCIES else None


class Tally:
    """Counts observations of one version as they come in."""

    def __init__(self, start: Performance = Performance()) -> None:
        self._requests, self._crashes, self._fault = start.requests, start.crashes, start.fault
        self._labelled, self._correct = start.labelled, start.correct
        self._errors, self._latency = dict(start.errors), dict(start.latency)

    def answered(self, latency_ms: float, error: str | None) -> None:
        """One request."""
        self._requests += 1
        if error is not None:
            self._errors[error] = self._errors.get(error, 0) + 1
            return
        index = latency_bin(latency_ms)
        self._latency[index] = self._latency.get(index, 0) + 1
        if self._requests % _KEPT == 0:
            self._latency = {index: number // 2 for index, number in self._latency.items() if number > 1}

    def labelled(self, *, correct: bool) -> None:
        """The truth about one answer."""
        self._labelled += 1
        self._correct += correct
        if self._labelled >= _KEPT:
            self._labelled, self._correct = self._labelled // 2, self._correct // 2

    def crashed(self, how: str) -> None:
        """Its worker died: `hang`, the name of a signal, `exit 3`."""
        self._crashes += 1
        if not self._fault and how in OWN_FAULTS:
            self._fault = how

    @property
    def performance(self) -> Performance:
        """A copy of the counts."""
        return Performance(
            requests=self._requests,
            errors=dict(self._errors),
            latency=dict(self._latency),
            labelled=self._labelled,
            correct=self._correct,
            crashes=self._crashes,
            fault=self._fault,
        )


def too_slow(now_ms: float, before_ms: float | None, *, ratio: float) -> bool:
    """Whether one run takes longer than `ratio` allows against the version before, beyond what nobody notices."""
    return before_ms is not None and now_ms > max(before_ms * ratio, before_ms + LATENCY_SLACK_MS)


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep watching."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Good for ever."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Take it back."""

    reason: str
    detail: str


Verdict = Hold | Pass | Fail


def judge(now: Performance, before: Performance, *, elapsed_seconds: float, settings: UpdateSettings) -> Verdict:
    """The verdict on `now` after `elapsed_seconds` of probation, against the version `before`."""
    timed_out = elapsed_seconds >= settings.probation_limit_seconds
    watched = elapsed_seconds >= settings.probation_seconds and now.requests >= settings.probation_requests
    last_look = timed_out or watched
    failure = (
        _crashes(now)
        or _errors(now, settings)
        or _accuracy(now, before, settings, last_look=last_look)
        or (_latency(now, before, settings) if last_look else None)
    )
    if failure is not None:
        return failure
    if timed_out:
        return Pass()
    return Pass() if watched and _labels_are_in(now, before, settings) else Hold()


def _crashes(now: Performance) -> Fail | None:
    if now.fault:
        how = "hung on a request" if now.fault == "hang" else f"crashed on a request ({now.fault})"
        return Fail(reasons.PROBATION_CRASH, f"its worker {how}")
    if now.crashes < CRASHES:
        return None
    return Fail(reasons.PROBATION_CRASH, f"its worker died {now.crashes} times")


def _errors(now: Performance, settings: UpdateSettings) -> Fail | None:
    allowed = settings.max_error_ratio * max(now.requests, settings.probation_requests)
    if now.failures < MIN_FAILURES or now.failures <= allowed:
        return None
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(now.errors.items()) if kind not in _NOT_OURS)
    detail = f"{now.failures} of {now.requests} requests failed ({kinds}); allowed {settings.max_error_ratio:.2%}"
    finite = now.errors.get("not-finite", 0) * 2 < now.failures
    return Fail(reasons.PROBATION_ERRORS if finite else reasons.PROBATION_OUTPUT, detail)


def _accuracy(now: Performance, before: Performance, settings: UpdateSettings, *, last_look: bool) -> Fail | None:
    """Few labels go wrong by chance: only a drop that is beyond what is allowed for certain fails."""
    if min(now.labelled, before.labelled) < settings.min_labelled:
        return None
    doubt = (ONE_LOOK if last_look else MANY_LOOKS) * math.hypot(_error_of(before), _error_of(now))
    if _drop(now, before) <= settings.max_accuracy_drop + doubt:
        return None
    return Fail(
        reasons.PROBATION_ACCURACY,
        f"accuracy {now.correct / now.labelled:.1%} over {now.labelled} labelled answers; "
        f"the version before had {before.correct / before.labelled:.1%} here over {before.labelled}",
    )


def _drop(now: Performance, before: Performance) -> float:
    return before.correct / before.labelled - now.correct / now.labelled


def _error_of(found: Performance) -> float:
    share = (found.correct + 1) / (found.labelled + 2)
    return math.sqrt(share * (1 - share) / found.labelled)


def _latency(now: Performance, before: Performance, settings: UpdateSettings) -> Fail | None:
    was, is_now = before.p95_ms, now.p95_ms
    if was is None or is_now is None:
        return None
    if not too_slow(is_now, was, ratio=settings.max_latency_ratio):
        return None
    return Fail(reasons.PROBATION_LATENCY, f"p95 {is_now:.1f} ms; the version before had {was:.1f} ms here")


def _labels_are_in(now: Performance, before: Performance, settings: UpdateSettings) -> bool:
    """Where feedback flows, wait (until the limit) for enough of it, and for more while a drop may be chance."""
    expected = before.labelled >= settings.min_labelled and now.labelled > 0
    if not expected:
        return True
    return now.labelled >= settings.min_labelled and _drop(now, before) <= settings.max_accuracy_drop
