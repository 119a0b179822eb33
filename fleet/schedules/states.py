"""What a schedule is, and the states it goes through.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, Self

from pydantic import TypeAdapter

from fleet.schedules.errors import ScheduleStateError
from fleet.schedules.precedence import Priority

Kind = Literal["once", "cron", "auto"]  # at one time, again and again, because an alias moved


class State(StrEnum):
    """Where a schedule stands; the words of API and dashboard."""

    WAITING = "waiting"  # for its time
    QUEUED = "queued"  # due; something stands in the way
    RUNNING = "running"  # it made a rollout
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"  # its rollout did not complete, or could not be made
    CANCELLED = "cancelled"
    MISSED = "missed"  # the manager was away at its time, for too long


class Event(StrEnum):
    """What may happen to a schedule."""

    DUE = "due"
    START = "start"  # its rollout is made
    FINISH = "finish"
    FAIL = "fail"
    AGAIN = "again"  # it waits for its next time
    MISS = "miss"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.WAITING: {
        Event.DUE: State.QUEUED,
        Event.AGAIN: State.WAITING,
        Event.MISS: State.MISSED,
        Event.PAUSE: State.PAUSED,
        Event.CANCEL: State.CANCELLED,
    },
    State.QUEUED: {
        Event.START: State.RUNNING,
        Event.FINISH: State.COMPLETED,
        Event.FAIL: State.FAILED,
        Event.AGAIN: State.WAITING,
        Event.PAUSE: State.PAUSED,
        Event.CANCEL: State.CANCELLED,
    },
    State.RUNNING: {
        Event.FINISH: State.COMPLETED,
        Event.FAIL: State.FAILED,
        Event.AGAIN: State.WAITING,
        Event.CANCEL: State.CANCELLED,
    },
    State.PAUSED: {Event.RESUME: State.WAITING, Event.CANCEL: State.CANCELLED},
    State.COMPLETED: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.MISSED: {},
}

#: Nothing happens by itself any more.
TERMINAL: Final = frozenset(state for state, moves in MOVES.items() if not moves)
#: Something may happen by itself.
LIVE: Final = (State.WAITING, State.QUEUED, State.RUNNING)


def advance(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        ScheduleStateError: the table has no such move.
    """
    try:
        return MOVES[state][event]
    except KeyError:
        raise ScheduleStateError(f"cannot {event} a schedule that is {state}") from None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Work for later: which rollout, and when."""

    id: str
    kind: Kind
    model: str
    version: str  # or an alias, looked up when it is due
    since: datetime  # when `state` began
    due: datetime  # its next time, or its last
    zone: str  # that `cron` is meant in
    cron: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)  # the rest of `rollouts.plan.Request`
    priority: Priority = "normal"
    grace_seconds: float = 3600.0
    state: State = State.WAITING
    reason: str | None = None
    rollout: str | None = None  # the newest that it made
    runs: int = 0

    @property
    def release(self) -> str:
        """`model@version`, for people."""
        return f"{self.model}@{self.version}"

    def moved(self, event: Event, now: datetime, reason: str | None = None) -> Self:
        """After `event`, at `now`.

        Raises:
            ScheduleStateError: not from this state.
        """
        return replace(self, state=advance(self.state, event), since=now, reason=reason)


_FORM: Final = TypeAdapter(Schedule)


def to_json(schedule: Schedule) -> dict[str, Any]:
    """`from_json(to_json(s)) == s`."""
    found: dict[str, Any] = _FORM.dump_python(schedule, mode="json")
    return found


def from_json(body: dict[str, Any]) -> Schedule:
    """Inverse of `to_json`.

    Raises:
        ValueError: not written by us.
    """
    return _FORM.validate_python(body)
