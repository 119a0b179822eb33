"""Schedules and aliases as API and dashboard show them.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.schedules.states import MOVES, Event, Schedule, State, from_json
from fleet.store import tables
from shared.clock import rfc3339


def document(row: tables.Schedule) -> dict[str, Any]:
    """One schedule."""
    schedule = from_json(row.body)
    return {
        "id": schedule.id,
        "kind": schedule.kind,
        "model": schedule.model,
        "version": schedule.version,
        "state": schedule.state.value,
        "reason": schedule.reason,
        "since": rfc3339(schedule.since),
        "due": rfc3339(schedule.due),
        "cron": schedule.cron,
        "zone": schedule.zone,
        "priority": schedule.priority,
        "window": window_text(schedule.request.get("window")),
        "target": schedule.request.get("target", "all"),
        "strategy": schedule.request.get("strategy") if schedule.kind != "auto" else None,
        "rollout": schedule.rollout,
        "runs": schedule.runs,
        "actions": list(actions(schedule)),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def actions(schedule: Schedule) -> Sequence[str]:
    """What a person may ask of it now."""
    moves = MOVES[schedule.state]
    possible = {
        "pause": Event.PAUSE in moves,
        "resume": Event.RESUME in moves,
        "cancel": Event.CANCEL in moves and not (schedule.state is State.RUNNING and schedule.cron is None),
    }
    return [name for name, may in possible.items() if may]


def window_text(said: Any) -> str | None:
    """`settings`, or `22:00 to 05:00`; None: at once."""
    if isinstance(said, Mapping):
        return f"{said['start']} to {said['end']}"
    return None if said is None else str(said)


def alias(row: tables.Alias, moves: Sequence[tables.AliasMove] = ()) -> dict[str, Any]:
    """One alias with its moves, newest first."""
    return {
        "model": row.model,
        "alias": row.name,
        "version": row.version,
        "moved_by": row.moved_by,
        "moved_at": rfc3339(row.moved_at),
        "moves": [
            {"from": it.before, "to": it.version, "by": it.by, "at": rfc3339(it.at), "undone": it.undone}
            for it in moves
        ],
    }
