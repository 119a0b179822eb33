"""`flotilla audit`: every write, by whom; and proof that no row was changed or taken out.

I/O: disk.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group


@group
def audit() -> None:
    """Who changed what, and proof that nothing was removed."""


@command(audit, "list", example="flotilla audit list --limit 20")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="The newest so many.")
def list_(shell: Shell, limit: int) -> None:
    """Show the newest writes first."""
    rows = shell.api.pages("/audit", limit=limit)
    columns = [("#", "sequence"), ("AT", "at"), ("WHO", "actor"), ("DID", "action"), ("TO", "subject")]
    shell.table(rows, columns, document={"items": rows}, empty="No writes yet.")


@command(audit, "export", example="flotilla audit export > audit.jsonl")
def export(shell: Shell) -> None:
    """Write all rows to stdout, oldest first, one JSON object a line."""
    for row in reversed(shell.api.pages("/audit", params={"limit": 500})):
        click.echo(json.dumps(row, ensure_ascii=False, sort_keys=True))


@command(audit, "verify", example="flotilla audit verify\nflotilla audit verify --against audit.jsonl")
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An earlier `audit export`: all of its rows must still be there, unchanged.",
)
def verify(shell: Shell, against: Path | None) -> None:
    """Check the chain of hashes over all rows. Exit code 1 when a row was changed or taken out.

    Rows cut off at the end do not break a chain: keep an export elsewhere, and compare with --against.
    """
    answer = shell.api.get("/audit/verify")
    broken = answer.get("first_broken")
    if broken is None and against is not None:
        broken = first_difference(_lines(against), shell.api.pages("/audit", params={"limit": 500}))
        answer = {**answer, "intact": broken is None, "first_broken": broken}
    if broken is None:
        shell.emit(answer, "Intact.")
        return
    shell.emit(answer, f"Broken at row {broken}: it, or the row before it, was changed or taken out.")
    shell.exit(Exit.FAILED)


def first_difference(kept: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> int | None:
    """The sequence of the first row of `kept` that is not in `found` as it was; None when all are."""
    present = {row["sequence"]: row for row in found}
    return next((int(row["sequence"]) for row in kept if present.get(row["sequence"]) != row), None)


def _lines(path: Path) -> list[Mapping[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise CliError("E_BAD_INPUT", f"{path} is not an export", str(error), "flotilla audit export > FILE") from None
