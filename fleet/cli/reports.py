"""`flotilla drift report`: a report on one model, stored in a file.

I/O: disk, network.
"""

import json
import re
import sys
from pathlib import Path
from typing import Final

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command
from fleet.cli.wording import size
from shared.durable import replace_file

#: A large fleet over a long time takes the manager a while.
PATIENCE_SECONDS: Final = 300.0


@command(
    None,
    "report",
    example="flotilla drift report digits --since 7d\n"
    "flotilla drift report digits@1.1.0 --since 24h --format pdf --output digits.pdf\n"
    "flotilla drift report digits --site hall-3 --format json --output -",
)
@click.argument("model", metavar="MODEL[@VERSION]")
@click.option("--since", default="7d", show_default=True, metavar="TIME", help="So long ago, or an instant.")
@click.option("--format", "kind", type=click.Choice(["html", "pdf", "json"]), default="html", show_default=True,
              help="One page without scripts, a printed one, or the numbers.")  # fmt: skip
@click.option("--output", metavar="FILE", help="Where to; `-` is stdout. Default: a file here, named by the manager.")
@click.option("--site", help="Of one site.")
@click.option("--device", help="Of one device.")
def report(
    shell: Shell, model: str, since: str, kind: str, output: str | None, site: str | None, device: str | None
) -> None:
    """Store a report: distributions, timelines, sites and devices, performance, alerts.

    It covers the version that most devices serve, unless one is named.
    """
    name, _, version = model.partition("@")
    asked = {"model": name, "version": version or None, "since": since, "format": kind, "site": site, "device": device}
    data, proposed = shell.api.download("/drift/report", params=asked, patience_seconds=PATIENCE_SECONDS)
    if output == "-":
        sys.stdout.buffer.write(data)
        return
    path = Path(output) if output else Path(_plain(proposed) or f"drift-report.{kind}")
    try:
        replace_file(path, data, mode=0o644)
    except OSError as error:
        why = error.strerror or ""
        raise CliError("E_FILE", f"cannot write {path}", why, "another file with --output", Exit.USAGE) from None
    said = {"file": str(path.absolute()), "bytes": len(data), "format": kind, "model": name}
    shell.emit(said, f"{said['file']}  {size(len(data))}")
    if kind == "json" and not shell.as_json:
        shell.say(str(json.loads(data)["headline"]))


def _plain(name: str) -> str:
    """What the manager called it, if that is a plain name."""
    return name if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,199}", name) else ""
