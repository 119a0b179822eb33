"""Why a schedule or an alias cannot be made or moved.

I/O: none.
"""

from fleet.api.problems import ConflictError, NotFoundError
from shared.errors import BadInputError


class ScheduleNotFoundError(NotFoundError):
    """No schedule has this id."""

    code = "E_SCHEDULE_UNKNOWN"
    default_remedy = "flotilla schedule list --all"


class ScheduleStateError(ConflictError):
    """What is asked does not fit the state of the schedule."""

    code = "E_SCHEDULE_STATE"
    default_remedy = "flotilla schedule list --all"


class ScheduleTimeError(BadInputError):
    """The time of a schedule is none, or over."""

    code = "E_SCHEDULE_TIME"
    default_remedy = "give a time to come, such as 2026-12-01T02:00, or five fields of cron, such as '0 2 * * sun'"


class AliasNotFoundError(NotFoundError):
    """The model has no alias of this name."""

    code = "E_ALIAS_UNKNOWN"
    default_remedy = "flotilla model alias MODEL"


class AliasUndoError(ConflictError):
    """The alias has no move that could be undone."""

    code = "E_ALIAS_UNDO"
    default_remedy = "move it instead: flotilla model alias MODEL NAME VERSION"
