"""click's classes, made to end with our exit codes and to speak in our form of errors.

I/O: disk.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from fleet.cli.errors import CliError, Exit

SETTINGS: Final = {"help_option_names": ["-h", "--help"]}
_COMMON: Final = frozenset({"as_json", "url", "token", "quiet", "verbose", "no_color", "help"})


def politely(run: Callable[..., Any], args: Sequence[str] | None, prog_name: str | None, **extra: Any) -> int:
    """Run click's `main`; the exit code, after everything that had to be said was said."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        code = run(arguments, prog_name, **extra, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = Exit.USAGE
    except click.UsageError as error:
        code = _say(_usage(error), arguments)
    except click.ClickException as error:
        code = _say(CliError("E_CLI", error.format_message()), arguments)
    except CliError as error:
        code = _say(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what the manager was told goes on", err=True)
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: no message at exit
        code = Exit.FAILED
    return int(code) if isinstance(code, int) else 0


def _usage(error: click.UsageError) -> CliError:
    path = error.ctx.command_path if error.ctx else "flotilla"
    return CliError("E_USAGE", error.format_message(), "", f"{path} --help", Exit.USAGE)


def _say(error: CliError, arguments: Sequence[str]) -> int:
    if "--json" in arguments or "--jsonl" in arguments:
        click.echo(json.dumps(error.document(), ensure_ascii=False, indent=2))
    click.echo(error.text(), err=True)
    return error.exit


class Command(click.Command):
    """A command whose help shows its own options first, then those that all commands have."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        code = politely(super().main, args, prog_name, complete_var=complete_var, **extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) and record[1]:
                (common if parameter.name in _COMMON else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """A noun with its verbs, in the order in which they are defined."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=200)) for name, one in found if one is not None])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        code = politely(super().main, args, prog_name, complete_var=complete_var, **extra)
        if standalone_mode:
            sys.exit(code)
        return code
