"""Which of two rollouts goes first on a device: priorities, and what stands in the way.

I/O: none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Priority = Literal["low", "normal", "high", "critical"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
#: The end of a device's way in a rollout that lost it, before it was told, to one of higher priority.
E_PREEMPTED: Final = "E_PREEMPTED"


def rank(priority: str) -> int:
    """The higher, the earlier."""
    ranks: dict[str, int] = {name: number for number, name in enumerate(PRIORITIES)}
    return ranks[priority]


@dataclass(frozen=True, slots=True)
class Rival:
    """Another rollout under way that the same device takes part in."""

    rollout: str
    model: str
    priority: str
    told: bool  # the device was told by it
    ended: bool  # the device's way in it is over


def held_by(model: str, priority: str, rivals: Iterable[Rival]) -> str | None:
    """Why a rollout of `model` does not tell the device yet; None when nothing stands in the way.

    One that has the device under way finishes first; one of the same model may still call the device back, so that
    it must be over. Nobody waits in a circle: what was told ends by itself, and of the rest the higher one goes first.
    """
    for rival in rivals:
        if rival.told and rival.model == model:
            return f"{rival.rollout} is not over yet"
        if rival.told and not rival.ended:
            return f"it is under way with {rival.rollout}"
        if not rival.told and not rival.ended and rank(rival.priority) > rank(priority):
            return f"{rival.rollout} ({rival.priority}) goes first"
    return None
