"""Why a report is refused.

I/O: none.
"""

from fleet.api.problems import NotFoundError
from shared.errors import BadInputError, RefusedError


class SpanError(BadInputError):
    """The time that a report was asked for cannot be meant."""

    code = "E_REPORT_SPAN"
    default_remedy = "--since 7d, --since 24h, --since 2026-11-01T08:00:00Z"


class EmptyReportError(NotFoundError):
    """Nothing came from the devices in this time."""

    code = "E_REPORT_EMPTY"
    default_remedy = "a longer time with --since, or `flotilla drift status`"


class PdfError(RefusedError):
    """This manager was installed without what draws PDF."""

    code = "E_REPORT_PDF"
    status = 501
    default_remedy = "--format html; or at the manager: pip install 'flotilla-edge[reports]'"
