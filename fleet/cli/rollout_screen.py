"""`flotilla rollout watch` on a terminal: one page that stays up to date.

I/O: none.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.cli import rollout_words as words

Document = Mapping[str, Any]

_COLORS: Final[Mapping[str, str]] = {
    "done": "green",
    "running": "magenta",
    "baking": "magenta",
    "paused": "yellow",
    "failed": "red",
    "pass": "green",
    "wait": "blue",
    "fail": "red",
    "completed": "green",
    "aborting": "yellow",
    "rolling-back": "yellow",
    "aborted": "red",
    "rolled-back": "red",
    "committed": "green",
}
_FIXED_LINES: Final = 16  # everything but the devices


def follow(states: Iterator[Document], *, link: str, every: bool) -> Document:
    """Show each state in place; the last one stays on the screen and is returned."""
    console = Console()
    found: Document = {}
    with Live(console=console, auto_refresh=False) as live:
        for found in states:
            live.update(frame(found, link=link, height=console.height, every=every), refresh=True)
    return found


def frame(found: Document, *, link: str, height: int, every: bool) -> RenderableType:
    """The page."""
    room = max(2, height - _FIXED_LINES - len(found["waves"]) - len(found["gates"]))
    return Group(
        _head(found),
        Text(""),
        _waves(found),
        Text(""),
        _devices(found, room, every=every),
        Text(""),
        _gates(found),
        Text(""),
        Text("Ctrl-C detaches, the rollout goes on", style="dim"),
        Text(link, style="dim"),
    )


def _color(word: str) -> str:
    return "red" if word in words.BAD else _COLORS.get(word, "magenta" if word in words.STEPS else "dim")


def _head(found: Document) -> Text:
    counts = found["counts"]
    before = f" {', '.join(found['previous'])} →" if found["previous"] else ""
    text = Text.assemble(
        (found["model"], "bold"), (before, "dim"), (f" {found['version']}", "bold"), "   ",
        (f"▶ {found['state']}", _COLORS.get(found["state"], "magenta")), "   ",
        (f"{found['id']} · by {found['created_by']} · {counts['committed']}/{counts['total']} devices", "dim"),
    )  # fmt: skip
    if found["reason"]:
        text.append(f"\n{found['reason']}", "yellow")
    return text


def _waves(found: Document) -> Table:
    table = Table.grid(padding=(0, 2))
    for wave in found["waves"]:
        color = _COLORS.get(wave["state"], "dim")
        now = wave["state"] in ("running", "baking", "paused")
        table.add_row(
            Text(words.MARKS[wave["state"]], color),
            Text(wave["name"], "bold" if now else ""),
            Text(wave["target"], "dim"),
            ProgressBar(total=max(1, wave["total"]), completed=wave["done"], width=24, complete_style=color),
            f"{wave['done']}/{wave['total']}",
            Text(words.note(wave), "dim"),
        )
    return table


def _devices(found: Document, room: int, *, every: bool) -> Table:
    chosen, more = words.chosen_devices(found, every=every, limit=room)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim", show_edge=False)
    for heading in ("DEVICE", "SITE", "PHASE", "STEP"):
        table.add_column(heading)
    for it in chosen:
        step = words.STEPS.get(it["state"])
        table.add_row(
            it["device"],
            Text(it["site"], "dim"),
            Text(words.phase(it), _color(it["state"])),
            Text("" if step is None else f"{step}/4", "dim"),
        )
    if more:
        table.caption, table.caption_justify = f"+{more} more (--all to list)", "left"
    return table


def _gates(found: Document) -> Table:
    table = Table.grid(padding=(0, 2))
    for gate in found["gates"]:
        mark = Text(words.MARKS[gate["result"]], _color(gate["result"]))
        table.add_row(mark, gate["name"], Text(gate["value_text"], "bold"), Text(gate["rule"], "dim"))
    return table
