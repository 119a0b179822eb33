"""A report as PDF, drawn by matplotlib (the extra `reports`): fonts embedded, the same bytes for the same report.

    summary · features, two a page · where and when · performance, alerts, coverage

Text is text: nothing is read as a formula, and characters that the font lacks become a box.

I/O: none.
"""

import io
import textwrap
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fleet.reports import drawing
from fleet.reports.content import CELLS, Feature, Number, Report, Strip
from fleet.reports.errors import PdfError
from fleet.reports.phrases import LEVELS, at, figure_level, meaning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

A4: Final = (8.27, 11.69)
FEATURES_A_PAGE: Final = 2
INK, DIM, LINE, ACCENT, LIVE, REFERENCE = "#0e1524", "#475266", "#cfd6e0", "#1f55e0", "#6b34dc", "#9aa3b2"
_TONES: Final = {"crit": "#c11f2b", "warn": "#955400", "ok": "#0b7a43", "off": "#596377"}
_CELLS: Final = ("#eef0f4", "#cfd6e0", "#bfe6d0", "#fbe3b5", "#f5bd57", "#ef8079", "#c11f2b")
_SETTINGS: Final[dict[Any, Any]] = {
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "axes.unicode_minus": False,
    "svg.hashsalt": "flotilla",
}
_DRAWING = threading.Lock()  # matplotlib's settings belong to the whole process


def render(report: Report) -> bytes:
    """The file.

    Raises:
        PdfError: matplotlib is not installed here.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_pdf import PdfPages
    except ImportError:
        raise PdfError("this manager has nothing that draws PDF") from None
    file = io.BytesIO()
    about = {"Title": f"Drift report: {report.model} {report.version}", "Creator": "Flotilla", "CreationDate": None}
    with _DRAWING, mpl.rc_context(_SETTINGS), PdfPages(file, metadata=about) as pages:
        for page in _pages(report):
            pages.savefig(page)
    return file.getvalue()


def _pages(report: Report) -> "Iterator[Figure]":
    yield _summary(report)
    for start in range(0, len(report.features), FEATURES_A_PAGE):
        yield _features(report, report.features[start : start + FEATURES_A_PAGE])
    for strip in report.strips:
        yield _strip(report, strip)
    for number, lines in enumerate(_cut(list(_tables(report)))):
        yield _text_page("Performance, alerts, coverage" if not number else "continued", lines)


@cache
def _known() -> frozenset[int]:
    """Characters that the font has."""
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _shown(text: str) -> str:
    return "".join(char if ord(char) in _known() else "\N{WHITE SQUARE}" for char in text)


def _page(title: str, more: str = "") -> "Figure":
    from matplotlib.figure import Figure

    made = Figure(figsize=A4)
    made.text(0.07, 0.955, _shown(title), size=15, weight="bold", color=INK, va="top")
    made.text(0.07, 0.93, _shown(more), size=8, color=DIM, va="top")
    return made


def _summary(report: Report) -> "Figure":
    made = _page(
        f"{report.model} {report.version}",
        f"Drift report on {report.where}, {at(report.since)} to {at(report.until)}. Made {at(report.made_at)}.",
    )
    tone, _, word = LEVELS[report.level]
    made.text(0.07, 0.895, word.upper(), size=9, weight="bold", color=_TONES[tone], va="top")
    height = 0.875
    for line in textwrap.wrap(report.headline, 78):
        made.text(0.07, height, _shown(line), size=12, color=INK, va="top")
        height -= 0.021
    made.text(0.07, height - 0.004, _shown(report.advice), size=9, color=DIM, va="top")
    lines = [*_numbers(report.numbers), ("", INK, ""), *_coverage(report)]
    if report.features_more:
        lines.append((f"{report.features_more} features with less to tell are left out.", DIM, ""))
    _write(made, lines, height - 0.045)
    return made


Text = tuple[str, str, str]  # text, colour, weight


def _numbers(numbers: Sequence[Number]) -> Iterator[Text]:
    for one in numbers:
        yield f"{one.label}: {one.text}", _TONES[LEVELS[one.level][0]] if one.level != "good" else INK, "bold"
        for line in textwrap.wrap(one.meaning, 112):
            yield f"   {line}", DIM, ""


def _coverage(report: Report) -> Iterator[Text]:
    yield "What the numbers are made from", INK, "bold"
    yield from _numbers(report.coverage.numbers)
    silent = [one.device for one in report.coverage.silent]
    if silent:
        more = f" and {report.coverage.silent_more} more" if report.coverage.silent_more else ""
        for line in textwrap.wrap(f"Nothing came from: {', '.join(silent)}{more}.", 112):
            yield f"   {line}", DIM, ""


def _tables(report: Report) -> Iterator[Text]:
    yield "Performance", INK, "bold"
    for one in report.performance.figures:
        tone, _, word = LEVELS[figure_level(one)]
        name = one.metric + (" (estimate)" if one.estimate else "")
        within = f" ({one.interval})" if one.interval else ""
        head = f"{name}: {one.written(one.value)}{within}, before {one.written(one.reference)}: {word}"
        yield head, _TONES[tone], "bold"
        for line in textwrap.wrap(f"{meaning(one)} Here: {one.text}", 112):
            yield f"   {line}", DIM, ""
    yield report.performance.note, DIM, ""
    yield "", INK, ""
    yield "Alerts", INK, "bold"
    if not report.alerts:
        yield "   No alert about this model in this time.", DIM, ""
    for alert in report.alerts:
        over = f", over {at(alert.resolved_at)}" if alert.resolved_at else f", {alert.state}"
        tone = "crit" if alert.severity in ("high", "critical") else "warn"
        yield f"{alert.id}  {alert.severity}, opened {at(alert.opened_at)}{over}", _TONES[tone], "bold"
        for line in textwrap.wrap(alert.text, 112):
            yield f"   {line}", DIM, ""
    if report.alerts_more:
        yield f"and {report.alerts_more} more.", DIM, ""


_LINES: Final = 70  # of a page


def _cut(lines: list[Text]) -> Iterator[list[Text]]:
    for start in range(0, len(lines), _LINES):
        yield lines[start : start + _LINES]


def _text_page(title: str, lines: Sequence[Text]) -> "Figure":
    made = _page(title)
    _write(made, lines, 0.92)
    return made


def _write(made: "Figure", lines: Sequence[Text], top: float, *, size: float = 7.5, step: float = 0.0125) -> None:
    for place, (text, color, weight) in enumerate(lines):
        made.text(0.07, top - step * place, _shown(text), size=size, color=color, weight=weight or "normal", va="top")


def _features(report: Report, some: Sequence[Feature]) -> "Figure":
    made = _page("Features", "Left: live (violet) against reference (grey). Right: PSI over time; dotted: what chance "
                 "explains; red: an alert was open.")  # fmt: skip
    for place, one in enumerate(some):
        bottom = 0.70 - 0.44 * place
        tone, _, word = LEVELS[one.level]
        made.text(0.07, bottom + 0.2, _shown(f"{one.name}: {word}"), size=9.5, weight="bold", color=_TONES[tone])
        for line, text in enumerate(textwrap.wrap(one.text, 118)[:2]):
            made.text(0.07, bottom + 0.186 - 0.011 * line, _shown(text), size=7.5, color=DIM)
        _histogram(_axes(made, (0.07, bottom + 0.035, 0.4, 0.13)), one)
        _timeline(_axes(made, (0.53, bottom + 0.035, 0.4, 0.13)), one, report)
        _write(made, list(_numbers(one.numbers)), bottom - 0.005, size=6.2, step=0.0105)
    return made


def _axes(made: "Figure", place: tuple[float, float, float, float]) -> "Axes":
    axes = made.add_axes(place)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(labelsize=6.5, colors=DIM, length=0)
    axes.set_yticks([])
    return axes


def _histogram(axes: "Axes", one: Feature) -> None:
    reference, live, ticks, scale = drawing.histogram(one)
    for bars, color, alpha in ((reference, REFERENCE, 0.55), (live, LIVE, 0.42)):
        x, _, width, height = zip(*bars, strict=True)
        axes.bar(x, height, width, align="edge", color=color, alpha=alpha)
    axes.set_xlim(0, drawing.WIDTH)
    _ticks(axes, ticks)
    axes.set_xlabel(_shown(scale), size=6.5, color=DIM)


def _ticks(axes: "Axes", ticks: Sequence[tuple[float, str]]) -> None:
    axes.set_xticks([place for place, _ in ticks], [_shown(text) for _, text in ticks])


def _timeline(axes: "Axes", one: Feature, report: Report) -> None:
    drawn = drawing.timeline(one.timeline, report.cuts, report.column_seconds)
    step = drawing.WIDTH / max(1, len(one.timeline))
    for x, width in drawn.alarms:
        axes.axvspan(x, x + width, color="#c11f2b", alpha=0.14, linewidth=0)
    for name, cut in report.cuts:
        if cut < drawn.top:
            axes.axhline(cut, color="#c11f2b" if name in ("high", "critical") else "#955400", linewidth=0.5, alpha=0.6)
            axes.text(drawing.WIDTH, cut, f"{name} {cut:g}", size=5.5, color=DIM, ha="right", va="bottom")
    places = [(index + 0.5) * step for index in range(len(one.timeline))]
    nothing = float("nan")
    told = [max(0.0, it.psi) if it.psi is not None and it.cell != "few" else nothing for it in one.timeline]
    chance = [nothing if it.limit is None else min(it.limit, drawn.top) for it in one.timeline]
    axes.plot(places, chance, color=DIM, linewidth=0.8, linestyle=":")
    axes.plot(places, told, color=ACCENT, linewidth=1.2, marker="o", markersize=2)
    axes.set_xlim(0, drawing.WIDTH)
    axes.set_ylim(0, drawn.top)
    _ticks(axes, drawn.ticks)
    axes.set_xlabel(f"PSI, 0 to {drawn.top:.2g}", size=6.5, color=DIM)


def _strip(report: Report, strip: Strip) -> "Figure":
    from matplotlib.colors import BoundaryNorm, ListedColormap

    made = _page(strip.title, f"{', '.join(_words())}; black: an alert was open.")
    rows = strip.rows
    if not rows:
        return made
    tall = min(0.86, 0.019 * len(rows) + 0.01)
    axes = _axes(made, (0.24, 0.90 - tall, 0.56, tall))
    table = [[CELLS.index(cell) for cell in row.cells] for row in rows]
    colours, norm = ListedColormap(_CELLS), BoundaryNorm([place - 0.5 for place in range(len(CELLS) + 1)], len(CELLS))
    axes.pcolormesh(table, cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
    for place, row in enumerate(rows):
        for column in row.alarms:
            axes.plot([column, column + 1], [place + 0.92] * 2, color="black", linewidth=1, solid_capstyle="butt")
        moved = f"{row.worst} {max(row.psi or 0.0, 0.0):.2f}" if row.worst else "too few samples"
        axes.text(len(row.cells) * 1.01, place + 0.5, _shown(moved), size=6, color=DIM, va="center")
    axes.set_yticks([place + 0.5 for place in range(len(rows))], [_shown(row.name[:28]) for row in rows])
    axes.invert_yaxis()
    marks = drawing.ticks(report.columns, 1.0, report.column_seconds)
    _ticks(axes, list(marks))
    if strip.more:
        made.text(0.07, 0.03, f"and {strip.more} more, none of them worse.", size=7.5, color=DIM)
    return made


def _words() -> Sequence[str]:
    return ("white: nothing came", "grey: too few samples", "green: as the reference", "yellow: low",
            "orange: medium", "rose: high", "red: critical")  # fmt: skip
