"""Draw the diagrams of `docs/` from the tables in the code, and check every link between pages.

`python docs/build.py` writes, `--check` only compares: exit code 1 and a list when something is not current.

I/O: disk.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGE = DOCS / "diagrams.md"
FILE = re.compile(r"`((?:agent|fleet|shared|systemd|tests|docs)/[\w./-]*)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")

Moves = Mapping[StrEnum, Mapping[StrEnum, StrEnum]]


def diagram(moves: Moves, start: StrEnum) -> str:
    """A Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_id(start)}"]
    lines += [f'    state "{state}" as {_id(state)}' for state in moves if _id(state) != str(state)]
    for state, events in moves.items():
        lines += [f"    {_id(state)} --> {_id(after)}: {event}" for event, after in events.items()]
        if not events:
            lines.append(f"    {_id(state)} --> [*]")
    return "\n".join([*lines, "```"])


def _id(state: StrEnum) -> str:
    return str(state).replace("-", "_")


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """The whole of `diagrams.md`."""
    from agent.update import lifecycle, slots
    from fleet.alerts import states as alerts
    from fleet.rollouts import states
    from fleet.schedules import states as schedules

    owed = [
        [f"`{state}`", f"`{effect}`", _phase(lifecycle.PHASES.get(state))] for state, effect in lifecycle.OWES.items()
    ]
    parts = [
        "# State machines",
        "Written by `make docs` from the tables in the code; do not edit. A move that is not drawn here raises.",
        "## One update on one device",
        "`agent/update/lifecycle.py`. The state is saved before the effect that it owes is performed.",
        diagram(lifecycle.MOVES, lifecycle.State.ANNOUNCED),
        table(("State", "Effect it owes", "Phase that is reported"), owed),
        "## One slot of a model",
        "`agent/update/slots.py`. Each model has two slots on a device.",
        diagram(slots.MOVES, slots.State.EMPTY),
        "## One rollout",
        "`fleet/rollouts/states.py`.",
        diagram(states.MOVES, states.State.RUNNING),
        "## One schedule",
        "`fleet/schedules/states.py`. What it means is in [Schedules](schedules.md).",
        diagram(schedules.MOVES, schedules.State.WAITING),
        "## One alert",
        "`fleet/alerts/states.py`. What it means is in [Alerts](alerts.md).",
        diagram(alerts.MOVES, alerts.State.OPEN),
    ]
    return "\n\n".join(parts) + "\n"


def _phase(phase: StrEnum | None) -> str:
    return f"`{phase}`" if phase else "none"


def broken_links() -> Iterator[str]:
    """Links to files or headings that do not exist, and files of ours that are named but not there."""
    for source in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]:
        for name in FILE.findall(source.read_text(encoding="utf-8")):
            if not (ROOT / name).exists():
                yield f"{source.relative_to(ROOT)}: {name}"
        for target in LINK.findall(re.sub(r"```.*?```", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (source.parent / name).resolve() if name else source
            if not file.exists() or (anchor and anchor not in anchors(file)):
                yield f"{source.relative_to(ROOT)}: {target}"


def anchors(file: Path) -> set[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def main(arguments: list[str]) -> int:
    """Exit code: 0 when all is current (or was made so)."""
    sys.path.insert(0, str(ROOT))
    fresh, problems = page(), list(broken_links())
    if "--check" not in arguments:
        PAGE.write_text(fresh, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != fresh:
        problems.append(f"{PAGE.relative_to(ROOT)} is not current; try  make docs")
    for problem in problems:
        sys.stderr.write(f"docs: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
