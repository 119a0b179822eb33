"""Root of the error tree, sorted by what the caller should do.

I/O: none.
"""

from typing import ClassVar


class FlotillaError(Exception):
    """Root. Only leaves are raised; programming mistakes stay built-in errors.

    `code` travels in reports, alerts and the API and is never renamed once released. `remedy` is
    what a person should do or type next; leaves give a default, raisers may give a better one.
    """

    code: ClassVar[str] = "E_FLOTILLA"
    default_remedy: ClassVar[str] = ""

    def __init__(self, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy or self.default_remedy


class RefusedError(FlotillaError):
    """The same input can never succeed: drop it, report why."""

    code = "E_REFUSED"


class UnavailableError(FlotillaError):
    """The same call may succeed later: back off, retry."""

    code = "E_UNAVAILABLE"


class BrokenError(FlotillaError):
    """This machine cannot keep its promises: stop, keep serving the good slot."""

    code = "E_BROKEN"


class BadInputError(RefusedError):
    """A value from outside does not have the form that it must have."""

    code = "E_BAD_INPUT"
