"""One condition of the gate, and how it came out.

I/O: none.
"""

from dataclasses import dataclass
from enum import StrEnum


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
    unit: str  # ratio, ms, psi, count, times
    reference: float | None = None
    detail: str = ""
    e_value: float | None = None  # of comparisons: evidence of harm; beyond `e_limit` it stops the rollout
    e_limit: float | None = None
    p: float | None = None  # 1 / e_value, holds at every look
    holds: bool = False  # to WAIT is to hold the wave, also where evidence is not required
