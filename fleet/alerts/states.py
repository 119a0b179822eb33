"""The states of an alert, and how grave it is.

I/O: none.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, get_args

from fleet.api.problems import ConflictError, NotFoundError

Severity = Literal["low", "medium", "high", "critical"]
Kind = Literal[
    "drift",  # live data differs from the reference data
    "performance",  # slower, less accurate or more errors than it may be
    "rollout",  # a rollout stopped
    "deployment",  # devices of a rollout that goes on failed
    "connectivity",  # a device is silent
    "security",  # somebody tampers, or uses what was revoked
    "expiry",  # a token or a signed document runs out soon
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")

#: What people are told of an alert.
Told = Literal["opened", "worsened", "escalated", "resolved"]


class State(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    SILENCED = "silenced"  # a silence covers it: nobody is told
    ESCALATED = "escalated"  # open for too long, and nobody acknowledged it
    ACKNOWLEDGED = "acknowledged"  # somebody looks after it
    RESOLVED = "resolved"


class Event(StrEnum):
    """What may happen to an alert."""

    ACK = "ack"
    RESOLVE = "resolve"
    WORSEN = "worsen"  # graver than when it was acknowledged
    SILENCE = "silence"  # a silence covers it
    UNSILENCE = "unsilence"  # no silence covers it any more
    ESCALATE = "escalate"  # `alerts.escalation_hours` are over


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.OPEN: {
        Event.ACK: State.ACKNOWLEDGED,
        Event.RESOLVE: State.RESOLVED,
        Event.WORSEN: State.OPEN,
        Event.SILENCE: State.SILENCED,
        Event.ESCALATE: State.ESCALATED,
    },
    State.SILENCED: {
        Event.ACK: State.ACKNOWLEDGED,
        Event.RESOLVE: State.RESOLVED,
        Event.WORSEN: State.SILENCED,  # a silence for one severity no longer covers it: `unsilence` follows
        Event.UNSILENCE: State.OPEN,
    },
    State.ESCALATED: {
        Event.ACK: State.ACKNOWLEDGED,
        Event.RESOLVE: State.RESOLVED,
        Event.WORSEN: State.ESCALATED,
        Event.SILENCE: State.SILENCED,
    },
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


def at_least(severity: str, least: str) -> bool:
    """True when `severity` is `least` or graver."""
    return not graver(least, severity)
