"""A report as one page: no script, nothing from outside, light or dark as the reader likes, good on paper.

I/O: disk.
"""

from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from fleet.dashboard import page
from fleet.reports import drawing
from fleet.reports.content import Feature, Report
from fleet.reports.phrases import LEVELS, at, figure_level, meaning, where

#: With the answer of the manager, and within the file: nothing is loaded, nothing runs.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(report: Report) -> bytes:
    """The file."""
    context: dict[str, Any] = {
        "r": report,
        "policy": POLICY,
        "features": [(one, *_drawn(one, report)) for one in report.features],
        "strips": [
            (strip, [(row, drawing.runs(row), drawing.alarm_marks(row)) for row in strip.rows])
            for strip in report.strips
        ],
        "ticks": drawing.strip_ticks(report.columns, report.column_seconds),
        "figures": [(one, figure_level(one), meaning(one)) for one in report.performance.figures],
    }
    return _environment().get_template("report.html").render(context).encode()


def plot(report: Report, one: Feature) -> bytes:
    """One feature as an SVG file of its own."""
    drawn, curve = _drawn(one, report)
    return _environment().get_template("plot.svg").render(r=report, f=one, h=drawn, t=curve).encode()


def _drawn(one: Feature, report: Report) -> tuple[Any, drawing.Timeline]:
    return drawing.histogram(one), drawing.timeline(one.timeline, report.cuts, report.column_seconds)


@cache
def _environment() -> Environment:
    made = page.environment(Path(__file__).parent / "templates")
    made.globals.update(LEVELS=LEVELS)
    made.filters.update(at=at, where=where)
    return made
