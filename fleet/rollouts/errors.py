"""Why a rollout cannot be started or moved.

I/O: none.
"""

from typing import ClassVar

from fleet.api.problems import ConflictError, NotFoundError
from shared.errors import BadInputError, RefusedError


class RolloutNotFoundError(NotFoundError):
    """No rollout has this id."""

    code = "E_ROLLOUT_UNKNOWN"
    default_remedy = "flotilla rollout list"


class ReleaseNotFoundError(NotFoundError):
    """The model or its version was never published."""

    code = "E_RELEASE_UNKNOWN"
    default_remedy = "flotilla model list"


class WavesError(BadInputError):
    """The waves do not describe a way to all devices."""

    code = "E_WAVES"
    default_remedy = "give growing counts or percentages that end with 100%, such as 1,25%,100%"


class NoDevicesError(BadInputError):
    """The target matches no device that could be updated."""

    code = "E_NO_DEVICES"
    default_remedy = "flotilla device list"


class AlreadyThereError(NoDevicesError):
    """Every device of the target serves the version."""


class OverlapError(ConflictError):
    """Another rollout is still at work on some of these devices."""

    code = "E_ROLLOUT_OVERLAP"


class WithdrawnError(ConflictError):
    """The release was withdrawn."""

    code = "E_WITHDRAWN"
    default_remedy = "choose another version: flotilla model show MODEL"


class RolloutStateError(ConflictError):
    """What is asked does not fit the state of the rollout."""

    code = "E_ROLLOUT_STATE"


class OwnApprovalError(RefusedError):
    """Who started a rollout cannot approve it."""

    code = "E_OWN_APPROVAL"
    status: ClassVar[int] = 403
    default_remedy = "ask another person with the role approver or admin"


class ProvenBadError(ConflictError):
    """The release failed on this hardware class before."""

    code = "E_PROVEN_BAD"
    default_remedy = "publish a version that is mended, or take it there all the same: --force"


class HookError(BadInputError):
    """The webhook that a rollout names cannot be asked as the manager is set up."""

    code = "E_GATE_WEBHOOK"
    default_remedy = "name a channel of kind webhook from fleet.yaml, or set gates.secret_file"
