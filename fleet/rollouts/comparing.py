"""Checks that compare: with devices on the version before at the same time, and with rollouts before.

I/O: none.
"""

import math
from collections.abc import Mapping
from typing import Final

from fleet.rollouts import counting, trials
from fleet.rollouts.checks import Check, Result
from fleet.rollouts.numbers import Numbers
from fleet.rollouts.trials import ALL, DESIGNS, Kind, Trial

NAMES: Final[Mapping[Kind, str]] = {
    "errors": "errors v control",
    "slow": "slow v control",
    "crashes": "crashes v control",
    "wrong": "wrong answers v control",
}


def trial(numbers: Numbers, kind: Kind) -> Check | None:
    """One kind of event: the scope with the most evidence. None before anything was compared."""
    scopes = numbers.trials.tests.get(kind, {})
    compared = {scope: test for scope, test in scopes.items() if test.seen.candidate_due > 0}
    if ALL not in compared:
        return None
    level, classes = numbers.limits.false_abort_level, len(scopes) - 1
    limits = {scope: trials.limit(level, scope, classes) for scope in compared}
    worst = max(compared, key=lambda scope: (compared[scope].log_e - limits[scope], scope == ALL))
    test, design = compared[worst], DESIGNS[kind]
    tolerance = numbers.limits.max_degradation if design.tolerance is None else design.tolerance
    bad = test.log_e >= limits[worst]
    return Check(
        name=NAMES[kind],
        result=Result.FAIL if bad else Result.PASS,
        value=test.ratio,
        limit=1 + tolerance,
        unit="times",
        reference=1.0,
        detail=_sentence(kind, worst, test, limits[worst]),
        e_value=counting.e_value(test.log_e),
        e_limit=counting.e_value(limits[worst]),
        p=counting.chance(test.log_e),
    )


def _sentence(kind: Kind, scope: str, test: Trial, limit: float) -> str:
    seen, design = test.seen, DESIGNS[kind]
    where = "" if scope == ALL else f" on {scope}"
    number = f"{seen.candidate:g} {design.one if seen.candidate == 1 else design.many}{where}"
    if seen.control_due <= 0:
        return f"{number}; no device on the version before to compare with"
    expected = seen.candidate_due * seen.control / seen.control_due
    proof = f"E {counting.e_value(test.log_e):.3g}, stops at {counting.e_value(limit):.3g}"
    return f"{number}, {expected:.3g} expected from the devices' history and the others at the same time ({proof})"


def usual_failures(numbers: Numbers) -> Check | None:
    """More devices that end badly than in rollouts before; None without these, or before any device ended."""
    usual, ended, bad = numbers.usual_failures, numbers.ended, sum((numbers.bad or {}).values())
    if usual is None or not ended:
        return None
    log_e, limit = counting.against(bad, ended, usual), math.log(1 / numbers.limits.false_abort_level)
    proof = f"E {counting.e_value(log_e):.3g}, stops at {counting.e_value(limit):.3g}"
    return Check(
        name="failures v usual",
        result=Result.FAIL if log_e >= limit else Result.PASS,
        value=bad / ended,
        limit=None,
        unit="ratio",
        reference=usual,
        detail=f"{bad} of {ended} devices failed, {usual:.1%} in rollouts before ({proof})",
        e_value=counting.e_value(log_e),
        e_limit=counting.e_value(limit),
        p=counting.chance(log_e),
    )
