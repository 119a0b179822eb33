"""`flotilla-agent`: arguments and exit codes. stdout is data, stderr is words.

I/O: disk, network, process, tasks.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from agent import errors
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.settings import AgentSettings

DEFAULT_CONFIG: Final = Path("/etc/flotilla/agent.yaml")
_INSTALL_SECONDS: Final = 6 * 3600.0  # engines and probation of several releases
_MARKS: Final = {"ok": "ok     ", "warning": "warning", "failed": "failed "}


def _fail(error: FlotillaError, as_json: bool) -> NoReturn:
    if as_json:
        problem = {"code": error.code, "title": error.detail, "hint": error.remedy}
        click.echo(json.dumps(problem), err=True)
    else:
        click.echo(f"error {error.code}: {error.detail}", err=True)
        if error.remedy:
            click.echo(f"  try: {error.remedy}", err=True)
    sys.exit(errors.exit_code(error))


def _settings(config: Path | None, overrides: Mapping[str, object]) -> AgentSettings:
    from agent.settings import AgentSettings
    from shared.configuration import load

    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    return load(AgentSettings, path, overrides=overrides).settings


def _command(*, example: str, **attributes: Any) -> Callable[[Callable[..., None]], click.Command]:
    """A sub-command with --config, --state-dir and --json; our errors become text and exit codes."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def call(config: Path | None, state_dir: Path | None, as_json: bool, **arguments: Any) -> None:
            try:
                settings = _settings(config, {"state_dir": state_dir})
                function(settings, as_json, **arguments)
            except FlotillaError as error:
                _fail(error, as_json)
            except KeyboardInterrupt:
                sys.exit(errors.INTERRUPTED)

        call = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")(call)
        call = click.option(
            "--state-dir",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Where keys, models and reports are kept. Default: /var/lib/flotilla-agent.",
        )(call)
        call = click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help=f"Settings (YAML). Default: {DEFAULT_CONFIG}, if it exists.",
        )(call)
        return main.command(epilog=f"\b\nExample:\n  flotilla-agent {example}", **attributes)(call)

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flotilla-edge", prog_name="flotilla-agent")
def main() -> None:
    """Flotilla's agent: keeps the models on this device up to date, serves them, tells how they do.

    \b
    First time:  flotilla-agent enroll https://MANAGER --token TOKEN
    Then:        flotilla-agent run          (or: systemctl start flotilla-agent)
    Trouble:     flotilla-agent doctor

    Every setting can also come from the environment: FLOTILLA_SERVING__HTTP_PORT=8610.

    Exit codes: 0 done, 1 failed, 2 usage, 4 not allowed, 5 conflict, 6 unreachable, 130 interrupted.
    """


@_command(name="enroll", example="enroll https://fleet.example:8420 --token TOKEN --id camera-7")
@click.argument("manager_url", metavar="URL")
@click.option(
    "--token",
    default="",
    envvar="FLOTILLA_CLAIM_TOKEN",
    help="Claim token (`flotilla device invite`); without one the manager must let devices ask.",
)
@click.option("--id", "device_id", metavar="ID", help="Name of this device in the fleet. Default: its host name.")
@click.option("--name", default="", help="A name for people, such as `Hall 3, camera 2`.")
def enroll(
    settings: AgentSettings, as_json: bool, manager_url: str, token: str, device_id: str | None, name: str
) -> None:
    """Join the fleet whose manager is at URL.

    Makes this device's keys at the first call; they never leave it. Repeating it is harmless.
    """
    from agent import enrolment, identity
    from agent.state_folder import locked
    from agent.telemetry.host import hardware_class
    from shared.identifiers import checked

    device = checked("device id", device_id or _host_name())
    claim = enrolment.Claim(
        token=token,
        device_id=device,
        name=name or device,
        hardware=settings.hardware or hardware_class(),
        agent_version=identity.agent_version(),
    )
    with locked(settings.state_dir):
        keys = identity.keys(settings.state_dir)
        answer = enrolment.enroll(manager_url, claim, keys)
        identity.save(settings.state_dir, answer)
    document = {
        "device_id": answer.device_id,
        "lifecycle": answer.lifecycle,
        "manager_url": answer.manager_url,
        "broker": answer.mqtt.url,
        "fingerprint": keys.fingerprint,
    }
    text = f"{answer.device_id} has joined {answer.manager_url} ({answer.lifecycle}); keys {keys.fingerprint}"
    _emit(document, f"{text}\nnow start it: flotilla-agent run", as_json)


@_command(name="run", example="run --config /etc/flotilla/agent.yaml")
def run(settings: AgentSettings, as_json: bool) -> None:
    """Serve, update, report: the daemon. Ends at SIGTERM or Ctrl-C."""
    _log_to_stderr(settings.log_level, as_json=as_json)
    from agent import daemon

    asyncio.run(daemon.run(settings))


@_command(name="status", example="status --json")
def status(settings: AgentSettings, as_json: bool) -> None:
    """How the running agent is: connection, what serves and why, what waits to be sent."""
    from agent import control, tables

    document = control.ask(settings.state_dir, "status")
    _emit(document, tables.status(document), as_json)


@_command(name="slots", example="slots")
def slots(settings: AgentSettings, as_json: bool) -> None:
    """What each slot of each model holds, what serves (*) and why. Works without the daemon, too."""
    from agent import control, tables

    try:
        document = control.ask(settings.state_dir, "slots")
    except errors.NotRunningError:
        document = _slots_on_disk(settings.state_dir)
    _emit(document, tables.slots(document), as_json)


def _slots_on_disk(state_dir: Path) -> dict[str, Any]:
    """The slot records, read while no daemon runs."""
    from dataclasses import replace

    from pydantic import TypeAdapter

    from agent.update.slot_disk import SlotDisk
    from agent.update.standing import Standing, standing

    found: list[Standing] = []
    disk = SlotDisk(state_dir)
    for model in disk.models():
        try:
            record = disk.read(model)
        except FlotillaError as error:
            raise errors.StateFolderError(
                error.detail, remedy="start the agent: it makes the record anew from what the slots hold"
            ) from None
        known = standing(record, serving=None, trouble=None, current=None, waiting=None, last_end=None)
        found.append(replace(known, why="no agent runs here"))
    models = TypeAdapter(list[Standing]).dump_python(found, mode="json")
    lines = [
        {"slot": name, "model": one["model"], "state": slot["state"], "version": slot["version"]}
        for one in models
        for name, slot in one["slots"].items()
    ]
    return {"slots": lines, "models": models}


@_command(name="rollback", example="rollback digits --yes")
@click.argument("model", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(settings: AgentSettings, as_json: bool, model: str | None, yes: bool) -> None:
    """Go back to the other good version of MODEL on this device; a trial ends at once.

    MODEL may be left out where only one model can go back. The manager is told, and the rollout that had brought
    the version does not bring it again; a newer rollout, or one with force, does.
    """
    from agent import control, tables

    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this changes what the device serves; give --yes to do it without a question")
        document = control.ask(settings.state_dir, "slots")
        click.echo(tables.slots(document), err=True)
        click.confirm(f"go back to the version before{f' of {model}' if model else ''}?", abort=True, err=True)
    wanted = {"model": model} if model else {}
    document = control.ask(settings.state_dir, "rollback", more=wanted)
    _emit(document, str(document["detail"]), as_json)


@_command(name="install", example="install /media/usb")
@click.argument("bundle", type=click.Path(path_type=Path, file_okay=False))
def install(settings: AgentSettings, as_json: bool, bundle: Path) -> None:
    """Install the releases in the folder BUNDLE (`flotilla bundle export`), checked as if they came by network.

    The running agent does it, and must be able to read BUNDLE; the command waits for the end. Without a running
    agent the first release is prepared, and the next start installs it. Repeating it is harmless.
    """
    from agent import control, tables
    from agent.update import installing

    try:
        more = {"bundle": str(bundle.absolute())}
        document = control.ask(settings.state_dir, "install", timeout_seconds=_INSTALL_SECONDS, more=more)
    except errors.NotRunningError:
        document = asyncio.run(_prepared(settings.state_dir, bundle.absolute()))
    _emit(document, tables.installed(document), as_json)
    installing.judge(document)


async def _prepared(state_dir: Path, bundle: Path) -> dict[str, Any]:
    """Verify and copy while no daemon runs."""
    from agent import identity
    from agent.state_folder import locked
    from agent.update import installing
    from agent.update.journal import Journal
    from agent.update.trust import Trust
    from shared.clock import SystemClock

    enrolled, keys = identity.enrolment(state_dir), identity.keys(state_dir)
    with locked(state_dir):
        journal = Journal(state_dir / "update.sqlite")
        trust = Trust(
            journal,
            root=enrolled.root.encode(),
            device=enrolled.device_id,
            manager_url=enrolled.manager_url,
            box_key=keys.box,
            clock=SystemClock(),
        )
        try:
            return await installing.prepare(state_dir, trust, journal, folder=bundle)
        finally:
            journal.close()


@_command(name="doctor", example="doctor --json")
def doctor(settings: AgentSettings, as_json: bool) -> None:
    """Check what this device needs: clock, disk, ONNX Runtime, identity, manager, broker."""
    from dataclasses import asdict

    from agent.doctor import examine

    found = []
    for check in examine(settings):
        found.append(check)
        if not as_json:
            click.echo(f"{_MARKS[check.result]}  {check.name:<12} {check.detail}")
            if check.remedy:
                click.echo(f"         {'':<12} try: {check.remedy}")
    failed = [check.name for check in found if check.result == "failed"]
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "checks": [asdict(check) for check in found]}))
    if failed:
        raise errors.UnhealthyError(f"{', '.join(failed)} failed")


@_command(name="uninstall", example="uninstall --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(settings: AgentSettings, as_json: bool, yes: bool) -> None:
    """Delete this device's keys, models, journal and reports. Stop the service first.

    The manager is not told: revoke the device there. Settings and the program itself stay.
    """
    from agent import identity, uninstalling

    state_dir = settings.state_dir
    try:
        device = identity.enrolment(state_dir).device_id
    except errors.NotEnrolledError:
        device = ""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this deletes everything in {state_dir}; give --yes to do it without a question")
        click.confirm(f"delete everything in {state_dir}?", abort=True, err=True)
    uninstalling.remove(state_dir)
    after = f"; at the manager: flotilla device revoke {device}" if device else ""
    _emit({"device": device, "removed": str(state_dir)}, f"{state_dir} is empty{after}", as_json)


def _emit(document: Mapping[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(document) if as_json else text)


def _host_name() -> str:
    """The host's name in the form of a device id, as far as it can be."""
    name = socket.gethostname().split(".")[0].lower()
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name).strip("-")


class _JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "from": record.name, "text": record.getMessage()}
        return json.dumps(line | ({"trace": self.formatException(record.exc_info)} if record.exc_info else {}))


def _log_to_stderr(level: str, *, as_json: bool) -> None:
    """One line per event. Under systemd the journal adds the time."""
    time = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter(f"{time}%(levelname)-7s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx2", "httpcore2", "httpx", "httpcore", "tuf", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
