"""Errors as `application/problem+json` (RFC 9457): what happened, why, what to do next, a stable code.

I/O: none.
"""

from typing import Any, Final

from shared.errors import BadInputError, BrokenError, FlotillaError, RefusedError, UnavailableError


class Problem(Exception):  # noqa: N818  # the word of RFC 9457
    """An answer that is not the wanted one. `code` is stable; `title` never changes for a code."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        hint: str = "",
        *,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status, self.code, self.title, self.detail, self.hint = status, code, title, detail, hint
        self.errors = errors
        self.headers = headers or {}

    def document(self, request_id: str) -> dict[str, Any]:
        """The body of the answer."""
        said: dict[str, Any] = {
            "type": f"urn:flotilla:problem:{self.code}",
            "code": self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "request_id": request_id,
        }
        return said if self.errors is None else {**said, "errors": self.errors}


class NotFoundError(RefusedError):
    """Nothing has this name. Subjects may raise leaves with their own code."""

    code = "E_NOT_FOUND"


class ConflictError(RefusedError):
    """What exists already stands in the way."""

    code = "E_CONFLICT"


_TITLES: Final = {
    401: "Not let in",
    404: "Not found",
    409: "Conflict",
    422: "Not acceptable as it stands",
    429: "Too many attempts",
    500: "The manager is broken",
    503: "Not possible right now",
}


def of_error(error: FlotillaError) -> Problem:
    """How one of our errors is told over HTTP. An error may name its own `status` and `retry_seconds`."""
    status = int(getattr(error, "status", 0)) or _status(error)
    headers = {"Retry-After": str(getattr(error, "retry_seconds", 2))} if status in (429, 503) else {}
    return Problem(status, error.code, _TITLES.get(status, "Refused"), error.detail, error.remedy, headers=headers)


def _status(error: FlotillaError) -> int:
    match error:
        case NotFoundError():
            return 404
        case ConflictError():
            return 409
        case BadInputError():
            return 422
        case UnavailableError():
            return 503
        case BrokenError():
            return 500
        case _:
            return 409
