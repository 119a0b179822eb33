"""Does the release agree with the version before, as devices compared them side by side?

Figures of all devices are added up. A rollout that requires agreement waits until it is proven: until the bound, below
which the true share lies with a chance of 5 %, is high enough.

I/O: none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from fleet.rollouts.states import Member, Rollout
from shared.messages import Phase, ShadowFigures
from shared.shadow import agreement, bounds, in_words, plus


@dataclass(frozen=True, slots=True)
class Judged:
    """What a gate says of it. `required`: the next wave waits for a `pass`."""

    result: Literal["pass", "wait", "fail"]
    value: float | None
    limit: float
    required: bool
    detail: str


def figures(members: Iterable[Member]) -> ShadowFigures:
    """Those of all devices together."""
    return reduce(plus, [member.shadow for member in members if member.shadow is not None], ShadowFigures())


def judge(rollout: Rollout, released: Iterable[Member]) -> Judged | None:
    """The verdict; None when the rollout compares nothing."""
    wanted = rollout.limits.min_shadow_agreement
    found = figures(released)
    if rollout.shadow is None and wanted is None and not found.samples:
        return None
    limit = wanted if wanted is not None else rollout.shadow.min_agreement if rollout.shadow is not None else 0.0
    share, (low, high) = agreement(found), bounds(found.agreed, found.samples)
    required = wanted is not None
    if share is None:
        return Judged("wait", None, limit, required, "nothing was compared yet")
    detail = f"{in_words(found)}; between {low:.1%} and {high:.1%} with 90 % confidence"
    if high < limit:
        detail = f"the release agrees too little with the version before: {detail}; limit {limit:.1%}"
        return Judged("fail", share, limit, required, detail)
    proven = low >= limit if required else share >= limit
    return Judged("pass" if proven else "wait", share, limit, required, detail)


def looks_on(member: Member) -> bool:
    """Whether its candidate is in the shadow now."""
    return member.recalled_at is None and member.state == Phase.SHADOWING
