"""`flotilla drift baseline`: what releases are compared with.

I/O: network.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group

Row = Mapping[str, Any]
Column = tuple[str, str | Callable[[Row], str]]
_SCOPE = click.option(
    "--scope", default="fleet", show_default=True, help="device:NAME, site:NAME, hardware:NAME or fleet."
)


@group
def baseline() -> None:
    """What releases are compared with."""


@command(baseline, "list", example="flotilla drift baseline list")
def list_(shell: Shell) -> None:
    """Show baselines that were pinned or learned anew; all others are those of their releases."""
    rows = shell.api.get("/baselines")["items"]
    columns: list[Column] = [
        ("MODEL@VERSION", lambda row: f"{row['model']}@{row['version']}"),
        ("SCOPE", "scope"),
        ("SOURCE", "source"),
        ("PINNED", lambda row: "yes" if row["pinned"] else "no"),
        ("BY", "chosen_by"),
        ("AT", "chosen_at"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="Every release is compared with its reference data.")


@command(baseline, "show", example="flotilla drift baseline show digits@1.1.0 --scope device:cam-7")
@click.argument("release", metavar="MODEL@VERSION")
@_SCOPE
def show(shell: Shell, release: str, scope: str) -> None:
    """Show what a release is compared with, and how much ordinary days differ from each other."""
    found = shell.api.get(_path(release), params={"scope": scope})
    columns: list[Column] = [
        ("FEATURE", "feature"),
        ("SAMPLES", lambda row: str(row["samples"])),
        ("MISSING", lambda row: str(row["missing"])),
        ("LOCATION", lambda row: _spread(row, "location")),
        ("SCALE", lambda row: _spread(row, "scale")),
        ("SHAPE", lambda row: _spread(row, "shape")),
    ]
    shell.table(found["features"], columns, document=found)
    shell.say(words(found))


@command(
    baseline,
    "pin",
    example="flotilla drift baseline pin digits@1.1.0\n"
    "flotilla drift baseline pin digits@1.1.0 --scope site:hall-3 --off",
)
@click.argument("release", metavar="MODEL@VERSION")
@_SCOPE
@click.option("--off", is_flag=True, help="Let it change again.")
def pin(shell: Shell, release: str, scope: str, off: bool) -> None:
    """Keep a baseline and its ordinary days as they are."""
    found = shell.api.post(_path(release, "pin"), json={"scope": scope, "pinned": not off})
    shell.emit(found, lambda: words(found))


@command(baseline, "relearn", example="flotilla drift baseline relearn digits@1.1.0 --scope device:cam-7 --days 3")
@click.argument("release", metavar="MODEL@VERSION")
@_SCOPE
@click.option("--days", type=click.IntRange(1, 400), help="So many of the last ones; default: baseline_window_days.")
def relearn(shell: Shell, release: str, scope: str, days: int | None) -> None:
    """Compare with the scope's own last days from now on: what is there now is ordinary."""
    found = shell.api.post(_path(release, "relearn"), json={"scope": scope, "days": days})
    shell.emit(found, lambda: words(found))


def words(found: Row) -> str:
    """One line for people."""
    source = "its reference data" if found["source"] == "release" else f"what was learned in {found['learned_from']}"
    pinned = ", pinned" if found["pinned"] else ""
    days = len(found["ordinary_days"])
    return f"{found['model']}@{found['version']} in {found['scope']}: {source}{pinned}; {days} ordinary days"


def _spread(row: Row, kind: str) -> str:
    return "–" if row["dispersion"] is None else f"{row['dispersion'][kind]:.1f}"


def _path(release: str, verb: str = "") -> str:
    model, at, version = release.partition("@")
    if not at or not version:
        raise CliError("E_USAGE", f"{release!r} is not MODEL@VERSION", "", "such as digits@1.1.0", Exit.USAGE)
    return f"/baselines/{quote(model, safe='')}/{quote(version, safe='')}" + (f"/{verb}" if verb else "")
