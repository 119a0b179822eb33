"""What happens to alerts without a person: silenced, heard again, escalated.

I/O: none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.alerts.matching import Silence, Traits, covering
from fleet.alerts.states import MOVES, Event, State


@dataclass(frozen=True, slots=True)
class Live:
    """An alert that is not over."""

    id: str
    state: State
    since: datetime  # when it came into its state
    traits: Traits


@dataclass(frozen=True, slots=True)
class Move:
    """One alert, one event. `because` is a sentence's end for the activity feed."""

    alert: str
    event: Event
    because: str


def moves(alerts: Iterable[Live], silences: Sequence[Silence], now: datetime, patience: timedelta) -> Iterator[Move]:
    """What is due at `now`. Once more, after the moves were made, there is nothing to do."""
    for alert in alerts:
        silence = covering(silences, alert.traits, now)
        if silence is not None and Event.SILENCE in MOVES[alert.state]:
            yield Move(alert.id, Event.SILENCE, f"by {silence.id} until {silence.until:%Y-%m-%d %H:%M} UTC")
        elif silence is None and Event.UNSILENCE in MOVES[alert.state]:
            yield Move(alert.id, Event.UNSILENCE, "no silence covers it any more")
        elif Event.ESCALATE in MOVES[alert.state] and silence is None and now - alert.since >= patience:
            yield Move(alert.id, Event.ESCALATE, f"nobody acknowledged it for {_hours(patience)}")


def _hours(patience: timedelta) -> str:
    return f"{patience.total_seconds() / 3600:g} h"
