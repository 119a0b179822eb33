"""How the agent's own shell fails, and which exit code tells it. Other leaves live with their steps.

I/O: none.
"""

from collections.abc import Mapping
from typing import Final

from shared.errors import BrokenError, FlotillaError, RefusedError, UnavailableError


class NotEnrolledError(RefusedError):
    """This device belongs to no fleet yet."""

    code = "E_NOT_ENROLLED"
    default_remedy = "flotilla-agent enroll https://MANAGER --token TOKEN"


class IdentityError(BrokenError):
    """Keys or enrolment on disk cannot be read."""

    code = "E_IDENTITY"
    default_remedy = "restore the folder `identity` from a backup, or delete it and enroll again with a new token"


class AlreadyRunningError(RefusedError):
    """Another agent works in this state folder."""

    code = "E_ALREADY_RUNNING"
    default_remedy = "stop it first (systemctl stop flotilla-agent), or give another --state-dir"


class NotRunningError(UnavailableError):
    """The daemon does not answer on its control socket."""

    code = "E_NOT_RUNNING"
    default_remedy = "start it: systemctl start flotilla-agent, or flotilla-agent run"


class ControlError(RefusedError):
    """The daemon was asked something that it does not do, or answered something strange."""

    code = "E_CONTROL"
    default_remedy = "use the flotilla-agent of the same version as the running daemon"


class RemoteError(RefusedError):
    """The daemon refused; its own code is part of the text."""

    code = "E_DAEMON_REFUSED"


class StateFolderError(BrokenError):
    """The state folder cannot be used."""

    code = "E_STATE_DIR"
    default_remedy = "give a folder that this user may write with --state-dir, or run as the flotilla-agent user"


class OutboxError(BrokenError):
    """A report could not be made durable."""

    code = "E_OUTBOX"
    default_remedy = "free disk space below the state folder"


class UnhealthyError(RefusedError):
    """A check of `doctor` failed."""

    code = "E_UNHEALTHY"
    default_remedy = "see the checks marked `failed`"


class InstallFailedError(RefusedError):
    """A release of a bundle was verified and then not kept."""

    code = "E_INSTALL"
    default_remedy = "do what the code in the text asks for; `flotilla-agent slots` shows what serves"


class EnrolTokenError(RefusedError):
    """The manager does not accept the claim token."""

    code = "E_ENROL_TOKEN"
    default_remedy = "make a new one where the fleet is operated: flotilla device invite"


class EnrolConflictError(RefusedError):
    """A device of this id exists with other keys."""

    code = "E_ENROL_CONFLICT"
    default_remedy = "choose another --id, or revoke the old device first: flotilla device revoke ID"


class EnrolRefusedError(RefusedError):
    """The manager refuses the enrolment for another reason."""

    code = "E_ENROL_REFUSED"


class EnrolNotReadyError(UnavailableError):
    """The manager is there but cannot enroll devices now."""

    code = "E_ENROL_NOT_READY"
    default_remedy = "set the fleet up first (flotilla init), then repeat this command"


class EnrolUnreachableError(UnavailableError):
    """No manager answers at the address."""

    code = "E_ENROL_UNREACHABLE"
    default_remedy = "check the address and that flotilla-fleet is running, then repeat this command"


class EnrolAnswerError(RefusedError):
    """What answered is not a Flotilla manager, or one of another version."""

    code = "E_ENROL_ANSWER"
    default_remedy = "check the address: it is the one at which the dashboard opens"


FAILED, USAGE, NOT_ALLOWED, CONFLICT, UNREACHABLE, INTERRUPTED = 1, 2, 4, 5, 6, 130

EXITS: Final[Mapping[str, int]] = {
    "E_BAD_INPUT": USAGE,
    "E_CONFIG": USAGE,
    EnrolTokenError.code: NOT_ALLOWED,
    EnrolConflictError.code: CONFLICT,
    AlreadyRunningError.code: CONFLICT,
    EnrolUnreachableError.code: UNREACHABLE,
    EnrolNotReadyError.code: UNREACHABLE,
    NotRunningError.code: UNREACHABLE,
}


def exit_code(error: FlotillaError) -> int:
    """The exit code of INTERFACES: 1 unless the table says more."""
    return EXITS.get(error.code, FAILED)
