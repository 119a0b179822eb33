"""Schedules as lines of the Rollouts page. Values in, values out.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.rollouts.progress import span
from fleet.schedules.states import TERMINAL, State, from_json
from fleet.schedules.views import actions, window_text
from fleet.store import tables

#: State -> tone and symbol of the pill.
STATES: Final[Mapping[State, tuple[str, str]]] = {
    State.WAITING: ("off", "i"),
    State.QUEUED: ("warn", "pause"),
    State.RUNNING: ("can", "play"),
    State.PAUSED: ("warn", "pause"),
    State.COMPLETED: ("ok", "check"),
    State.FAILED: ("crit", "x"),
    State.CANCELLED: ("warn", "x"),
    State.MISSED: ("crit", "x"),
}
#: Those in which something may still happen, and those that a person should know of.
SHOWN: Final = tuple(state.value for state in State if state not in TERMINAL or state is State.MISSED)


@dataclass(frozen=True, slots=True)
class Later:
    """One line."""

    id: str
    model: str
    version: str
    state: str
    tone: str
    symbol: str
    reason: str
    due: str
    repeats: str
    window: str
    priority: str
    rollout: str
    by: str
    actions: tuple[tuple[str, str], ...]  # verb, word


def listed(rows: Sequence[tables.Schedule], now: datetime) -> tuple[Later, ...]:
    """Schedules as lines, in the order given."""
    return tuple(_line(row, now) for row in rows)


def _line(row: tables.Schedule, now: datetime) -> Later:
    schedule = from_json(row.body)
    tone, symbol = STATES[schedule.state]
    left = (schedule.due - now).total_seconds()
    window = window_text(schedule.request.get("window"))
    return Later(
        id=schedule.id,
        model=schedule.model,
        version=schedule.version,
        state=schedule.state.value,
        tone=tone,
        symbol=symbol,
        reason=schedule.reason or "",
        due=f"in {span(left)}" if left > 0 else f"{schedule.due:%d %b %H:%M} UTC",
        repeats=f"{schedule.cron} {schedule.zone}" if schedule.cron else "once",
        window="at once" if window is None else "maintenance window" if window == "settings" else window,
        priority=schedule.priority,
        rollout=schedule.rollout or "",
        by=row.created_by,
        actions=tuple((verb, verb.capitalize()) for verb in actions(schedule)),
    )
