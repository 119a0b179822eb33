"""`flotilla`: the table of commands. Nothing is imported before it is needed.

I/O: disk.
"""

import importlib
from collections.abc import Mapping
from typing import Final

import click
from click.shell_completion import CompletionItem

from fleet.cli.errors import CliError
from fleet.cli.grammar import Group

#: section -> name -> (module:attribute, what it does in one line)
COMMANDS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Start here": {
        "demo": ("fleet.demo.command:demo", "Show the whole story with three devices on this machine."),
        "init": ("fleet.cli.keys:init", "Make signing keys and give the manager their trust."),
        "login": ("fleet.cli.config:login", "Sign in to a manager, with name and password or a token."),
        "logout": ("fleet.cli.config:logout", "Sign out."),
        "status": ("fleet.cli.status:status", "How the fleet is doing, in a few lines."),
        "doctor": ("fleet.cli.doctor:doctor", "Find out what is wrong, and how to repair it."),
        "open": ("fleet.cli.status:open_", "Open the dashboard in a browser."),
    },
    "Devices": {
        "device": ("fleet.cli.devices:device", "Invite, list, label, accept, revoke, roll back."),
    },
    "Releases": {
        "key": ("fleet.cli.keys:key", "Signing keys. They stay with you; the manager never sees them."),
        "model": ("fleet.cli.models:model", "Publish and look at versions of models."),
        "rollout": ("fleet.cli.rollouts:rollout", "Bring a version to devices, wave by wave."),
        "schedule": ("fleet.cli.schedules:schedule", "Rollouts for later, once or again and again."),
        "bundle": ("fleet.cli.bundles:bundle", "Releases in a folder, for devices without network."),
    },
    "Watch": {
        "drift": ("fleet.cli.drift:drift", "How live data differs from the reference data."),
        "alert": ("fleet.cli.alerts:alert", "What needs a person."),
    },
    "Access and settings": {
        "user": ("fleet.cli.users:user", "People who sign in with name and password."),
        "token": ("fleet.cli.tokens:token", "Access tokens, for programs above all."),
        "backup": ("fleet.cli.backups:backup", "Everything of the manager in one file, and back."),
        "audit": ("fleet.cli.audit:audit", "Who changed what, and proof that nothing was removed."),
        "config": ("fleet.cli.config:config", "Settings of this command line, and where they come from."),
        "completion": ("fleet.cli.completion:completion", "Let the shell complete commands."),
    },
}


class Lazy(Group):
    """Knows its commands by the table above and loads one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        for section in COMMANDS.values():
            if cmd_name in section:
                module, _, attribute = section[cmd_name][0].partition(":")
                try:
                    found = getattr(importlib.import_module(module), attribute)
                except ModuleNotFoundError as error:
                    raise _not_installed(cmd_name, error) from None
                return found if isinstance(found, click.Command) else None
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        rows = [row for section in COMMANDS.values() for row in section.items()]
        return [CompletionItem(name, help=words) for name, (_, words) in rows if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, words) for name, (_, words) in section.items()], col_max=12)


def _not_installed(name: str, error: ModuleNotFoundError) -> CliError:
    extra = "demo" if name == "demo" else "fleet"
    what, advice = f"`flotilla {name}` needs more than is installed", f"pip install 'flotilla-edge[{extra}]'"
    return CliError("E_NOT_INSTALLED", what, str(error), advice)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"flotilla {version('flotilla-edge')}")
        ctx.exit()


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has --help with an example.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Bring models to a fleet of edge devices, watch them, and take bad ones back.

    New here? Type `flotilla demo`.
    """


def main() -> None:
    """Entry point of the console script."""
    cli.main(prog_name="flotilla")


if __name__ == "__main__":
    main()
