"""What can go wrong for an operator: one shape, one exit code each.

I/O: none.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from fleet.rest.errors import ProblemError
from shared.errors import BadInputError, FlotillaError, UnavailableError


class Exit(IntEnum):
    """Exit codes of every command; scripts rely on them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    UNREACHABLE = 6
    TIMED_OUT = 7
    SOME_FAILED = 8
    INTERRUPTED = 130


_BY_STATUS: Final = {
    400: Exit.USAGE,
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    429: Exit.UNREACHABLE,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}

#: Where the code says more than the status.
_BY_CODE: Final = {"E_SIGN_IN_WAIT": Exit.NOT_ALLOWED}

#: What people type on the command line and only the manager can read.
_USAGE: Final = frozenset(
    {"E_BAD_INPUT", "E_FILTER", "E_PASSWORD", "E_REPORT_SPAN", "E_SCHEDULE_TIME", "E_WAVES", "E_ZONE"}
)
#: Here the title only repeats the status, and the detail tells what happened.
_TOLD_BY_DETAIL: Final = frozenset({401, 403, 404, 409, 422, 429, 500, 503})


class CliError(Exception):
    """Ends a command: what happened, why, and what to type next."""

    def __init__(self, code: str, what: str, why: str = "", try_: str = "", exit: int = Exit.FAILED) -> None:  # noqa: A002
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.try_ = try_
        self.exit = int(exit)

    def document(self) -> dict[str, Any]:
        """The form for `--json`, in the words of the manager's problems."""
        return {"code": self.code, "title": self.what, "detail": self.why, "hint": self.try_, "exit": self.exit}

    def text(self) -> str:
        """The form for people."""
        lines = [f"error {self.code}: {self.what}"]
        lines += [f"  {word:<5} {value}" for word, value in (("why", self.why), ("try", self.try_)) if value]
        return "\n".join(lines)


def from_problem(status: int, problem: Mapping[str, Any]) -> CliError:
    """The manager's `application/problem+json`, as an error of the command line."""
    title, detail = str(problem.get("title") or f"the manager answered {status}"), str(problem.get("detail") or "")
    places = [f"{item.get('pointer', '')}: {item.get('detail', '')}".strip(": ") for item in _places(problem)]
    usage = status == 422 and (bool(places) or problem.get("code") in _USAGE)
    hint = "the same command with --help" if usage and places else str(problem.get("hint") or "")
    if detail and status in _TOLD_BY_DETAIL:
        title, detail = detail, ""
        places = places[1:]  # the detail is the first of them
    return CliError(
        code=str(problem.get("code") or f"E_HTTP_{status}"),
        what=title,
        why="; ".join([detail, *places] if detail else places),
        try_=hint or ("flotilla login URL --user NAME" if status == 401 else ""),
        exit=Exit.USAGE if usage else _BY_CODE.get(str(problem.get("code")), _BY_STATUS.get(status, Exit.FAILED)),
    )


def _places(problem: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = problem.get("errors")
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def from_error(error: FlotillaError) -> CliError:
    """An error of our own libraries, as an error of the command line."""
    match error:
        case ProblemError():
            return from_problem(error.status, error.problem)
        case UnavailableError():
            code = Exit.UNREACHABLE
        case BadInputError():
            code = Exit.USAGE
        case _:
            code = Exit.FAILED
    return CliError(error.code, error.detail, "", error.remedy, code)
