"""`flotilla backup`: everything that the manager cannot make again, in one file; and a manager made from it.

I/O: disk, tasks, clock.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import size
from fleet.rest.calls import Call
from shared.durable import sync_folder

if TYPE_CHECKING:
    from fleet.backups.examining import Contents
    from fleet.backups.restoring import Plan
    from fleet.backups.sealing import Lock
    from fleet.settings import FleetSettings

F = TypeVar("F", bound=Callable[..., Any])


@group
def backup() -> None:
    """Everything that the manager cannot make again, in one file."""


def _passphrase_option(function: F) -> F:
    return click.option(
        "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
        help="Its first line is the passphrase of the backup. Without it a terminal is asked.",
    )(function)  # fmt: skip


def _beside(function: F) -> F:
    for option in (
        click.option("--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                     help="The manager's fleet.yaml.  [default: in the data folder, else in /etc/flotilla]"),
        click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                     help="The manager's data folder, on this machine."),
    ):  # fmt: skip
        function = option(function)
    return function


@command(
    backup,
    "create",
    example="flotilla backup create fleet.backup --passphrase-file secret.txt\n"
    "flotilla backup create --without-chunks --data-dir ./fleet --passphrase-file secret.txt",
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@_passphrase_option
@click.option("--without-chunks", is_flag=True, help="Leave the models out; keep the depot or bucket by other means.")
@_beside
def create(
    shell: Shell,
    file: Path | None,
    passphrase_file: Path | None,
    without_chunks: bool,
    data_dir: Path | None,
    config: Path | None,
) -> None:
    """Write a backup to FILE (default: flotilla-DATE.backup) while the manager runs.

    It comes from the manager by REST, which needs an admin's token; with --data-dir or --config it is made beside the
    manager's folder, also while the manager is down. The passphrase never leaves this machine.
    """
    from fleet.backups import examining, sealing

    target = file or Path(f"flotilla-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup")
    if target.exists():
        raise CliError("E_FILE", f"{target} exists", "backups are never overwritten", "another name", Exit.USAGE)
    lock = sealing.new_lock(_passphrase(passphrase_file, twice=True))
    new = target.with_name(f".{target.name}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            if data_dir is None and config is None:
                _from_manager(shell, lock, not without_chunks, out.write)
            else:
                asyncio.run(_beside_it(shell, _settings(config, data_dir), lock, not without_chunks, out.write))
            out.flush()
            os.fsync(out.fileno())
        contents = examining.complete(new, lock.key)
        new.replace(target)
        sync_folder(target.absolute().parent)
    except OSError as error:
        raise CliError("E_FILE", f"cannot write {target}", error.strerror or "", "another place", Exit.USAGE) from None
    finally:
        new.unlink(missing_ok=True)
    _warn(shell, contents)
    length = target.stat().st_size
    said = {"file": str(target.absolute()), "bytes": length, **contents.document()}
    shell.emit(said, f"{said['file']}  {size(length)}  {_described(contents)}")
    shell.say(
        "Keep it elsewhere, and the passphrase apart from it. Release and root keys are not in it: they are yours."
    )


def _from_manager(shell: Shell, lock: Lock, chunks: bool, write: Callable[[bytes], object]) -> None:
    terms = {name: value for name, value in lock.terms().items() if name != "kdf"}
    body = {**terms, "key": base64.b64encode(lock.key).decode(), "chunks": chunks}
    expected = 0 if not chunks else shell.api.get("/backups").get("expected_bytes", 0)
    with shell.progress("backup", expected) as advance:

        def take(piece: bytes) -> None:
            write(piece)
            advance(len(piece))

        shell.api.save(Call("POST", "/backups", json=body, headers={"Accept": "*/*"}), take)


async def _beside_it(
    shell: Shell, settings: FleetSettings, lock: Lock, chunks: bool, write: Callable[[bytes], object]
) -> None:
    from importlib.metadata import version

    from fleet.access.roles import system
    from fleet.backups.writing import Maker, Written, expected_bytes
    from fleet.parts import depot_of
    from fleet.store import backups
    from fleet.store.database import Database
    from shared import signing

    signing.install()
    _there(settings)
    database = Database(settings.database_url)
    await database.open()
    try:
        maker = Maker(database, depot_of(settings), settings.data_dir, lock, version("flotilla-edge"))
        written = Written(chunks=chunks, at=datetime.now(UTC))
        async with database.read() as tx:
            expected = await expected_bytes(tx) if chunks else 0
        with shell.progress("backup", expected) as advance:
            async for piece in maker.pieces(written):
                write(piece)
                advance(len(piece))
        async with database.write() as tx:
            await backups.record(tx, actor=system("backup"), body=written.document(), now=datetime.now(UTC))
    finally:
        await database.close()


def _there(settings: FleetSettings) -> None:
    if not (settings.data_dir / "keys" / "pepper").is_file():
        what = f"there is no manager's data in {settings.data_dir}"
        raise CliError("E_FILE", what, "", "--data-dir DIR, or --config FILE", Exit.USAGE)


@command(backup, "verify", example="flotilla backup verify fleet.backup --passphrase-file secret.txt")
@click.argument("file", type=click.Path(exists=True, path_type=Path, dir_okay=False))
@_passphrase_option
def verify(shell: Shell, file: Path, passphrase_file: Path | None) -> None:
    """Read a backup wholly and prove it: digests, the seal, keys, signatures, chunks. Changes nothing."""
    from fleet.backups import examining

    passphrase = _passphrase(passphrase_file)
    with shell.progress("verify", file.stat().st_size) as advance:
        contents = examining.examined(file, passphrase, progress=advance)
    _warn(shell, contents)
    shell.emit({"file": str(file), "whole": True, **contents.document()}, f"✔ {file}  {_described(contents)}")


@command(
    backup,
    "restore",
    example="flotilla backup restore fleet.backup --data-dir ./fleet --passphrase-file secret.txt --plan\n"
    "flotilla backup restore fleet.backup --data-dir ./fleet --passphrase-file secret.txt --yes",
)
@click.argument("file", type=click.Path(exists=True, path_type=Path, dir_okay=False))
@_passphrase_option
@_beside
@click.option("--plan", is_flag=True, help="Only tell what would be done.")
@click.option(
    "--replace", is_flag=True, help="Where there is a manager's data already: set it aside. It is not deleted."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(
    shell: Shell,
    file: Path,
    passphrase_file: Path | None,
    data_dir: Path | None,
    config: Path | None,
    plan: bool,
    replace: bool,
    yes: bool,
) -> None:
    """Make a manager from a backup, on the machine where it will run, while it does not run.

    Devices keep what they serve. Rollouts and schedules of that time are stopped; then `flotilla init`, where the
    release keys are, lets devices believe this manager again. Safe to repeat, also after it was killed.
    """
    from fleet.backups import restoring
    from fleet.backups.errors import NotEmptyError
    from fleet.errors import RunningError
    from shared import signing

    signing.install()
    settings = _settings(config, data_dir)
    passphrase = _passphrase(passphrase_file)
    length = file.stat().st_size
    with shell.progress("verify", length) as advance:
        found = asyncio.run(restoring.planned(file, passphrase, settings, progress=advance))
    _warn(shell, found.contents)
    if plan:
        shell.emit({**found.document(), "dry_run": True}, "\n".join(_planned(found, replace)))
        return
    shell.confirm("\n".join([*_planned(found, replace), "do it?"]), yes=yes)
    now = datetime.now(UTC)
    try:
        with shell.progress("restore", length) as advance:
            done = asyncio.run(restoring.restored(file, found, settings, replace=replace, now=now, progress=advance))
    except (NotEmptyError, RunningError) as error:
        raise CliError(error.code, error.detail, "", error.remedy, Exit.CONFLICT) from None
    said = {**found.document(), "rollouts_stopped": list(done.rollouts), "schedules_paused": list(done.schedules)}
    shell.emit(said, f"✔ {settings.data_dir}  restored: {_described(found.contents)}")
    shell.say(
        "Tokens and devices that were revoked since then are valid again: flotilla token list, flotilla device list."
    )
    shell.say(
        f"Next: flotilla-fleet run --data-dir {settings.data_dir}, then `flotilla init` where the release keys are."
    )


def _planned(found: Plan, replace: bool) -> list[str]:
    lines = [f"backup     {_described(found.contents)}", f"data       {found.data_dir}", f"database   {found.database}"]
    if found.occupied is not None:
        kept = "is set aside" if replace else "is in the way: it would be refused; --replace sets it aside"
        lines.append(f"there now  {found.occupied}, which {kept}")
    if found.rollouts:
        lines.append(f"rollouts   stopped, devices keep what they have: {', '.join(found.rollouts)}")
    if found.schedules:
        lines.append(f"schedules  paused: {', '.join(found.schedules)}")
    return lines


def _described(contents: Contents) -> str:
    devices, releases = contents.counts["devices"], contents.counts["releases"]
    chunks = f"{len(contents.chunks)} chunks" if contents.with_chunks else "no chunks"
    return f"of {contents.created:%Y-%m-%d %H:%M} UTC: {devices} devices, {releases} releases, {chunks}"


def _warn(shell: Shell, contents: Contents) -> None:
    if contents.missing:
        shell.say(f"! {len(contents.missing)} chunks were not in the depot: devices that lack them wait; publish again")


def _settings(config: Path | None, data_dir: Path | None) -> FleetSettings:
    from fleet.configuring import settings_of

    return settings_of(config, data_dir, {})


def _passphrase(file: Path | None, *, twice: bool = False) -> str:
    from fleet.backups.errors import PassphraseError

    if file is not None:
        try:
            return file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise PassphraseError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise PassphraseError("this needs the passphrase of the backup")
    asked: str = click.prompt("passphrase of the backup", hide_input=True, confirmation_prompt=twice, err=True)
    return asked
