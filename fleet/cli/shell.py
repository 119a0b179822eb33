"""What every command shares: common options, output, errors, exit codes.

    @group                                   a noun
    def device() -> None:
        \"""Devices of the fleet.\"""

    @command(device, "list", example="flotilla device list --json")
    def list_(shell: Shell) -> None:
        \"""Show the devices.\"""
        rows = shell.api.pages("/devices")
        shell.table(rows, [("DEVICE", "id")], document={"items": rows})

I/O: disk.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import click

from fleet.cli.errors import CliError, Exit, from_error
from fleet.cli.grammar import SETTINGS, Command, Group
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from fleet.cli.api import Api
    from fleet.cli.session import Session

Row: TypeAlias = Mapping[str, Any]
Column: TypeAlias = tuple[str, str | Callable[[Row], str]]


class Flags(NamedTuple):
    """What --url and --token said."""

    url: str | None
    token: str | None


class Shell:
    """What a command gets as its first argument."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        url: str | None = None,
        token: str | None = None,
        quiet: bool = False,
        verbose: int = 0,
        no_color: bool = False,
    ) -> None:
        self.as_json = as_json
        self.tty = sys.stdout.isatty() and not as_json
        self.verbose = verbose
        self.emitted = False
        self._quiet = quiet
        self._open = ExitStack()
        self._color = False if no_color or os.environ.get("NO_COLOR") else None
        self.flags = Flags(url, token)

    @functools.cached_property
    def session(self) -> "Session":
        """Address and token, from flag, environment, file or default."""
        from fleet.cli import session

        return session.find(self.flags.url, self.flags.token)

    @functools.cached_property
    def api(self) -> "Api":
        """The manager; nothing is sent before the first request."""
        return self.connect(self.session)

    def connect(self, session: "Session") -> "Api":
        """The manager of another session, such as one that is about to be stored."""
        from fleet.cli.api import Api  # loads the HTTP client: 80 ms

        return self._open.enter_context(closing(Api(session, trace=self.trace)))

    def close(self) -> None:
        """End the connections to managers."""
        self._open.close()

    def emit(self, document: Any, text: str | Callable[[], str]) -> None:
        """The command's result: one JSON document with `--json`, else `text`."""
        self._out(_dumps(document) if self.as_json else text() if callable(text) else text)

    def table(self, rows: Sequence[Row], columns: Sequence[Column], *, document: Any = None, empty: str = "") -> None:
        """Rows for people on a terminal, tab-separated elsewhere, the `document` (or the rows) with `--json`.

        A column is a heading and a key, or a heading and a function of the row. `empty` is said when there are no rows.
        """
        if self.as_json:
            self.emit(list(rows) if document is None else document, "")
            return
        cells = [[_cell(row, source) for _, source in columns] for row in rows]
        if not rows:
            self.say(empty or "Nothing to show.")
        elif self.tty:
            self._out(_aligned([heading for heading, _ in columns], cells))
        else:
            self._out("\n".join("\t".join(cell.replace("\t", " ") for cell in line) for line in cells))

    def line(self, document: Any, text: str) -> None:
        """One item of a stream: a line of JSON with `--json`, else `text`."""
        self._out(json.dumps(document, ensure_ascii=False, separators=(",", ":")) if self.as_json else text)

    def say(self, text: str) -> None:
        """Words for people, on stderr; not with `--quiet`."""
        if not self._quiet:
            click.echo(text, err=True, color=self._color)

    def trace(self, text: str) -> None:
        """Words for the curious, with `--verbose`."""
        if self.verbose:
            click.echo(f"  {text}", err=True, color=self._color)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Return if the answer is yes; ask only a person at a terminal.

        Raises:
            CliError: nobody to ask, or the answer is no.
        """
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()) or self.as_json:
            raise CliError("E_CONFIRM", "this needs a yes", question, "the same command with --yes", Exit.USAGE)
        if not click.confirm(question, err=True):
            raise CliError("E_CONFIRM", "nothing was changed", "the answer was no")

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on stderr for long work; yields a function that is told what was just done."""
        if self._quiet or self.as_json or not sys.stderr.isatty():
            yield lambda _: None
            return
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update

    def exit(self, code: int) -> NoReturn:
        """End the command with this exit code, after its result was shown."""
        raise click.exceptions.Exit(int(code))

    def fail(self, error: CliError) -> NoReturn:
        """Say what went wrong and end the command; with `--json` the problem is the document."""
        if self.as_json and not self.emitted:
            self._out(_dumps(error.document()))
        click.echo(error.text(), err=True, color=self._color)
        raise click.exceptions.Exit(error.exit)

    def _out(self, text: str) -> None:
        self.emitted = True
        click.echo(text, color=self._color)


def _dumps(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)


def _cell(row: Row, source: str | Callable[[Row], str]) -> str:
    value = source(row) if callable(source) else row.get(source)
    match value:
        case None | "":
            return "–"
        case True | False:
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key}={item}" for key, item in value.items())
        case _:
            return " ".join(str(value).split("\n"))


def _aligned(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells]
    heading = "  ".join(f"{cell:<{width}}" for cell, width in zip(headings, widths, strict=True))
    return "\n".join([click.style(heading.rstrip(), dim=True), *(line.rstrip() for line in lines)])


def group(function: Callable[[], None]) -> Group:
    """A noun: the function's name and docstring, nothing else."""
    return click.group(cls=Group, context_settings=SETTINGS)(function)


def command(parent: click.Group | None = None, name: str | None = None, *, example: str) -> Callable[..., Command]:
    """Make the decorated function a command of `parent` (None: of `flotilla` itself).

    It gets a `Shell` as its first argument. `example` is one or more lines that can be typed as they are.
    """

    def decorate(function: Callable[..., None]) -> Command:
        @functools.wraps(function)
        def run(
            *, as_json: bool, url: str | None, token: str | None, quiet: bool, verbose: int, no_color: bool, **own: Any
        ) -> None:
            shell = Shell(as_json=as_json, url=url, token=token, quiet=quiet, verbose=verbose, no_color=no_color)
            try:
                function(shell, **own)
            except CliError as error:
                shell.fail(error)
            except FlotillaError as error:
                shell.fail(from_error(error))
            finally:
                shell.close()

        for option in reversed(_common_options()):
            run = option(run)
        made = click.command(name, cls=Command, epilog=example, context_settings=SETTINGS)(run)
        if parent is not None:
            parent.add_command(made)
        return made

    return decorate


def _common_options() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--json", "--jsonl", "as_json", is_flag=True, help="One JSON document on stdout (streams: one a line)."
        ),
        click.option("--url", metavar="URL", help="The manager's address (or FLOTILLA_URL)."),
        click.option("--token", metavar="TOKEN", help="Access token (or FLOTILLA_TOKEN)."),
        click.option("-q", "--quiet", is_flag=True, help="No words on stderr but errors."),
        click.option("-v", "--verbose", count=True, help="Tell on stderr what is asked of the manager."),
        click.option("--no-color", is_flag=True, help="No colours (or NO_COLOR=1)."),
    ]
