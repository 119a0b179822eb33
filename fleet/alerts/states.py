"""The states of an alert, and how grave it is.

I/O: none.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

from fleet.api.problems import ConflictError, NotFoundError

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")


class State(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"  # somebody looks after it
    RESOLVED = "resolved"


class Event(StrEnum):
    """What may happen to an alert."""

    ACK = "ack"
    RESOLVE = "resolve"
    WORSEN = "worsen"  # graver than when it was acknowledged


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.OPEN: {Event.ACK: State.ACKNOWLEDGED, Event.RESOLVE: State.RESOLVED, Event.WORSEN: State.OPEN},
    State.ACKNOWLEDGED: {
        Event.ACK: State.ACKNOWLEDGED,
        Event.RESOLVE: State.RESOLVED,
        Event.WORSEN: State.OPEN,
    },
    State.RESOLVED: {},
}


class AlertStateError(ConflictError):
    """What is asked does not fit the state of the alert."""

    code = "E_ALERT_STATE"
    default_remedy = "flotilla alert list"


class AlertNotFoundError(NotFoundError):
    """No alert has this id."""

    code = "E_ALERT_UNKNOWN"
    default_remedy = "flotilla alert list --all"


def advance(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        AlertStateError: the table has no such move.
    """
    try:
        return MOVES[state][event]
    except KeyError:
        raise AlertStateError(f"cannot {event} an alert that is {state}") from None


def graver(left: str, right: str) -> bool:
    """True when `left` is a graver severity than `right`."""
    ranks: dict[str, int] = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    return ranks[left] > ranks[right]
