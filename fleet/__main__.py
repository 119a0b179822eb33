"""`flotilla-fleet`: run the manager, prepare its folder, bring its database up to date, look for what is wrong.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fleet.configuring import CONFIG_NAME, DEFAULT_CONFIG
from shared.errors import BadInputError, FlotillaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.settings import FleetSettings


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every sub-command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--data-dir", type=click.Path(path_type=Path), help="Where the manager keeps everything."),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help=f"Configuration. Default: {CONFIG_NAME} in the data folder, else {DEFAULT_CONFIG}.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flotilla-edge", prog_name="flotilla-fleet")
def main() -> None:
    """The manager of a Flotilla fleet: registry, releases, rollouts, drift, REST, dashboard, embedded broker.

    \b
    First time:   flotilla-fleet init --data-dir ./fleet
                  flotilla-fleet run  --data-dir ./fleet
    """


@main.command()
@common
@click.option("--port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one.")
def run(config: Path | None, data_dir: Path | None, as_json: bool, port: int | None) -> None:
    """Serve in the foreground until Ctrl-C or SIGTERM.

    \b
    Example:  flotilla-fleet run --data-dir ./fleet
    """
    try:
        settings = _settings(config, data_dir, {"server.port": port})
        _log_to_stderr(settings)
        from fleet.daemon import run as serve

        asyncio.run(serve(settings, announce=_announcer(as_json)))
    except FlotillaError as error:
        _fail(error, as_json)
    except ExceptionGroup as group:
        first = _leaf(group)
        if not isinstance(first, FlotillaError):
            raise  # a bug: the service manager starts us again, the log has the details
        _fail(first, as_json)


@main.command()
@common
def init(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Make the data folder, a commented fleet.yaml, the database, the manager's keys and the first admin token.

    Nothing that is there already is changed.

    \b
    Example:  flotilla-fleet init --data-dir ./fleet
    """
    from fleet import preparing

    try:
        settings = _settings(config, data_dir, {})
        made = asyncio.run(preparing.prepare(settings, config))
    except FlotillaError as error:
        _fail(error, as_json)
    if as_json:
        click.echo(json.dumps(made))
        return
    for line in preparing.told(made):
        click.echo(line)


@main.command()
@common
def migrate(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Bring the database to the form that this version needs. `run` does the same at its start.

    \b
    Example:  flotilla-fleet migrate --data-dir ./fleet
    """
    from fleet import preparing

    try:
        moved = asyncio.run(preparing.migrate(_settings(config, data_dir, {})))
    except FlotillaError as error:
        _fail(error, as_json)
    before, after = moved["from"] or "empty", moved["to"]
    words = f"Database: {before} -> {after}" if before != after else f"The database is at {after} already."
    click.echo(json.dumps(moved) if as_json else words)


@main.command()
@common
def doctor(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Look at disk, database, keys, broker, clock and trust; say what is wrong and how to mend it. Exit code 1 if so.

    \b
    Example:  flotilla-fleet doctor --data-dir ./fleet
    """
    from fleet import doctor as examination

    try:
        settings = _settings(config, data_dir, {})
    except FlotillaError as error:
        _fail(error, as_json)
    findings = asyncio.run(examination.examine(settings))
    if as_json:
        click.echo(json.dumps({"ok": examination.healthy(findings), "findings": [one.document() for one in findings]}))
    else:
        click.echo("\n".join(examination.told(findings)))
    sys.exit(0 if examination.healthy(findings) else 1)


def _settings(config: Path | None, data_dir: Path | None, overrides: dict[str, Any]) -> FleetSettings:
    from fleet.configuring import settings_of

    return settings_of(config, data_dir, overrides)


def _log_to_stderr(settings: FleetSettings) -> None:
    form = "%(asctime)s %(levelname)-7s %(name)s %(message)s"
    logging.basicConfig(level=settings.log_level.upper(), format=form, stream=sys.stderr)
    for name in ("uvicorn", "alembic", "amqtt", "transitions", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _announcer(as_json: bool) -> Callable[[str], None]:
    return lambda line: click.echo(line, err=True) if as_json else click.echo(line)


def _leaf(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, ExceptionGroup) else first


def _fail(error: FlotillaError, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"code": error.code, "detail": error.detail, "hint": error.remedy}))
    else:
        click.echo(f"error {error.code}: {error.detail}", err=True)
        if error.remedy:
            click.echo(f"  try: {error.remedy}", err=True)
    sys.exit(2 if isinstance(error, BadInputError) else 1)


if __name__ == "__main__":
    main()
