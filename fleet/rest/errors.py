"""What a request to the manager may end with.

I/O: none.
"""

from collections.abc import Mapping
from typing import Any

from shared.errors import BadInputError, FlotillaError, RefusedError, UnavailableError


class ProblemError(RefusedError):
    """The manager refused: its `application/problem+json`, with the code that it gives.

    `status` is that of HTTP, `problem` the whole document.
    """

    code = "E_PROBLEM"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title = str(problem.get("title") or f"the manager answered {status}")
        detail = str(problem.get("detail") or "")
        super().__init__(f"{title}: {detail}" if detail else title, remedy=str(problem.get("hint") or ""))
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or f"E_HTTP_{status}")  # type: ignore[misc]  # that of the manager


class UnreachableError(UnavailableError):
    """No answer. What was asked may have been done; a repeated POST with the same key is done once."""

    code = "E_UNREACHABLE"
    default_remedy = "start the manager with `flotilla-fleet run`, or correct the address"

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"no answer from the manager at {url}: {why}")
        self.why = why
        self.refused = False


class AnswerError(FlotillaError):
    """Something answered that is no Flotilla manager."""

    code = "E_ANSWER"
    default_remedy = "check the address; a proxy may stand in between"


class AddressError(BadInputError):
    """Not the address of a manager."""

    code = "E_URL"
    default_remedy = "http://HOST:8420"


class WaitError(UnavailableError):
    """The time to wait is over; what was waited for goes on."""

    code = "E_WAIT"
    default_remedy = "wait again, with a longer timeout_seconds"
