"""A report's values as SVG coordinates. Histograms come from the dashboard's `distribution.py`.

I/O: none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from fleet.dashboard import distribution
from fleet.reports.content import Feature, Point, Row

WIDTH: Final = 520.0
HEIGHT: Final = 120.0
STRIP: Final = 600.0
#: A day or more: only the day is written below a column.
_DAY: Final = 86400.0
_TICKS: Final = 5

Rect = tuple[float, float]  # x, width


@dataclass(frozen=True, slots=True)
class Timeline:
    """A drawing of 520 x 146: the line of PSI, what chance explains, cuts of the severities, alarms as bands."""

    line: str
    limit: str
    dots: tuple[tuple[float, float, str], ...]  # x, y, cell
    alarms: tuple[Rect, ...]
    cuts: tuple[tuple[float, str, str], ...]  # y, severity, value
    ticks: tuple[tuple[float, str], ...]
    top: float


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring cells that are alike, as one rectangle."""

    x: float
    width: float
    cell: str


def histogram(one: Feature) -> distribution.Shape:
    """Bars of reference and live, ticks, and what the height means."""
    return distribution.shape(distribution.Histogram(one.edges, one.reference, one.live, one.kind == "category"))


def timeline(points: Sequence[Point], cuts: Sequence[tuple[str, float]], seconds: float) -> Timeline:
    """The curve of one feature; the scale holds every value, but at least the cut of medium severity."""
    step = WIDTH / max(1, len(points))
    values = [max(0.0, one.psi) for one in points if one.psi is not None and one.cell != "few"]
    top = max([*(1.15 * value for value in values), *(1.25 * cut for _, cut in cuts[:2]), 0.01])

    def place(value: float) -> float:
        return round(HEIGHT - HEIGHT * min(max(value, 0.0), top) / top, 1)

    known = [(index, one) for index, one in enumerate(points) if one.psi is not None]
    return Timeline(
        line=_path([(index, place(one.psi or 0.0)) for index, one in known if one.cell != "few"], step),
        limit=_path([(index, place(one.limit or 0.0)) for index, one in known], step),
        dots=tuple((round((index + 0.5) * step, 1), place(one.psi or 0.0), one.cell) for index, one in known),
        alarms=tuple(_bands([one.alarm for one in points], step)),
        cuts=tuple((place(cut), name, f"{cut:g}") for name, cut in cuts if cut < top),
        ticks=tuple(ticks([one.start for one in points], step, seconds)),
        top=top,
    )


def _path(places: Sequence[tuple[int, float]], step: float) -> str:
    """A line through neighbours; where something is missing it has a gap."""
    words, before = [], -2
    for index, y in places:
        words.append(f"{'L' if index == before + 1 else 'M'}{(index + 0.5) * step:.1f},{y}")
        before = index
    return "".join(words)


def _bands(marks: Sequence[bool], step: float) -> Iterator[Rect]:
    place = 0
    for marked, many in groupby(marks):
        length = len(list(many))
        if marked:
            yield round(place * step, 1), round(length * step, 1)
        place += length


def ticks(starts: Sequence[datetime], step: float, seconds: float) -> Iterator[tuple[float, str]]:
    """A few dates or times below the columns."""
    form = "%d %b" if seconds >= _DAY else "%H:%M"
    every = max(1, -(-len(starts) // _TICKS))
    for index in range(0, len(starts), every):
        yield round((index + 0.5) * step, 1), f"{starts[index]:{form}}"


def runs(row: Row) -> tuple[Run, ...]:
    """The cells of one line."""
    step, place, found = STRIP / max(1, len(row.cells)), 0, []
    for cell, many in groupby(row.cells):
        length = len(list(many))
        found.append(Run(round(place * step, 1), round(length * step, 1), cell))
        place += length
    return tuple(found)


def alarm_marks(row: Row) -> tuple[Rect, ...]:
    """Where an alert was open."""
    step = STRIP / max(1, len(row.cells))
    return tuple(_bands([column in row.alarms for column in range(len(row.cells))], step))


def strip_ticks(columns: Sequence[datetime], seconds: float) -> tuple[tuple[float, str], ...]:
    """Dates below a strip."""
    return tuple(ticks(columns, STRIP / max(1, len(columns)), seconds))
