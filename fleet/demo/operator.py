"""The person in the story: types `flotilla` commands and reads what they answer.

The commands run in this process, through the same code as in a shell, with `--json`.

I/O: disk.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from shared.errors import BrokenError


class CommandFailedError(BrokenError):
    """A command of the demo did not do what the story tells."""

    code = "E_DEMO_COMMAND"


class Operator:
    """Runs commands against one manager, and shows each before it runs."""

    def __init__(self, *, url: str, token: str, keys: Path, show: Callable[[str], None]) -> None:
        self._environment = {"FLOTILLA_URL": url, "FLOTILLA_TOKEN": token, "FLOTILLA_KEYS": str(keys)}
        self._show = show

    def types(self, *words: str) -> dict[str, Any]:
        """Show and run `flotilla WORDS`; the JSON document that it answers."""
        self._show(f"$ flotilla {' '.join(words)}")
        return self.asks(*words)

    def asks(self, *words: str) -> dict[str, Any]:
        """Run `flotilla WORDS --json` quietly; the JSON document that it answers.

        Raises:
            CommandFailedError: any exit code but 0, with the command's own words.
        """
        out, err = io.StringIO(), io.StringIO()
        with _environment(self._environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run([*words, "--json"])
        if code != 0:
            raise CommandFailedError(
                f"flotilla {' '.join(words)} ended with {code}: {(err.getvalue() or out.getvalue()).strip()}",
                remedy="run the demo with --dir DIR to keep its logs",
            )
        found: dict[str, Any] = json.loads(out.getvalue())
        return found


def _run(words: list[str]) -> int:
    from fleet.cli.__main__ import cli  # late: the CLI names this package's command in its table

    try:
        ended = cli.main(words, prog_name="flotilla", standalone_mode=False)
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    return ended if isinstance(ended, int) else 0


@contextlib.contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
