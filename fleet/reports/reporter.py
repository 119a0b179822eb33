"""Makes reports: one at a time, with everything that takes long on a thread.

I/O: disk, tasks.
"""

import asyncio
import json
from typing import Final, Literal

from fleet.driver_parts import DriverParts
from fleet.reports import document, html, pdf
from fleet.reports.composing import compose
from fleet.reports.content import Report
from fleet.reports.gathering import Wish, gather

Format = Literal["html", "pdf", "json"]
TYPES: Final = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "json": "application/json"}


class Reporter:
    """Belongs to one event loop."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        self._turn = asyncio.Lock()  # a report of a large fleet takes memory: never two

    async def report(self, wish: Wish) -> Report:
        """The report as a value.

        Raises:
            NotFoundError, EmptyReportError, SpanError: see `gather`.
        """
        async with self._turn:
            facts = await gather(self._parts.database, self._parts.settings, wish)
            return await asyncio.to_thread(compose, facts, self._parts.clock.now())

    async def file(self, wish: Wish, kind: Format) -> bytes:
        """The report as a file of this kind.

        Raises:
            NotFoundError, EmptyReportError, SpanError, PdfError: see `gather` and `pdf.render`.
        """
        return await asyncio.to_thread(written, await self.report(wish), kind)


def written(report: Report, kind: Format) -> bytes:
    """The bytes of a file."""
    match kind:
        case "html":
            return html.render(report)
        case "pdf":
            return pdf.render(report)
        case "json":
            return json.dumps(document.document(report), ensure_ascii=False, indent=1).encode()


def name(report: Report, kind: Format) -> str:
    """What the file is called: letters, digits and dashes only, whatever the model is called."""
    words = (report.model, report.version, report.scope, f"{report.until:%Y%m%dT%H%M}")
    return f"drift-{plain('-'.join(words))}.{kind}"


def plain(text: str) -> str:
    """`text` as a part of a file's name."""
    return "".join(char if (char.isascii() and char.isalnum()) or char in "._" else "-" for char in text)[:160]
