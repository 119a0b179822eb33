"""`flotilla demo`: play the story, keep serving until Ctrl-C, remove everything that it made.

I/O: disk, process, clock.
"""

import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

import click

from fleet.cli.errors import CliError
from fleet.cli.shell import Shell, command
from fleet.demo.household import Household
from fleet.demo.story import Story
from shared.errors import FlotillaError


@command(name="demo", example="flotilla demo\nflotilla demo --once --json")
@click.option("--once", is_flag=True, help="End when the story is told; exit 0 only if each act ended as told.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything here: configuration, state, logs, endpoints.json. Default: a temporary folder, removed.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the dashboard. Default: any free one.")
def demo(shell: Shell, once: bool, folder: Path | None, port: int) -> None:
    """Show the whole story on this machine: three devices, two good models, a bad one, a dark evening.

    Starts a manager with its broker and dashboard and three device agents as separate processes, trains digit
    classifiers, publishes them signed and encrypted, rolls them out under real requests, and takes the bad one back.
    """
    home = _home(folder)
    household = Household(home, port=port)
    signal.signal(signal.SIGTERM, _interrupt)
    story = Story(household, show=lambda text: _show(shell, text))
    try:
        story.play()
        shell.emit(story.outcome, "\nThe story is told: each act ended as it must.")
        if not once:
            shell.say("Everything keeps running; look around. Ctrl-C stops and removes it all.")
            threading.Event().wait()
    except FlotillaError as error:
        kept = f"; logs in {home}" if folder else ""
        raise CliError(error.code, "the demo went wrong", f"{error.detail}{kept}", error.remedy) from error
    except KeyboardInterrupt:
        shell.say("\nStopping ...")
        if once:
            shell.exit(130)
    finally:
        for impatient in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not leave processes behind
            signal.signal(impatient, signal.SIG_IGN)
        story.stop()
        household.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def _home(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="flotilla-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise CliError("E_DEMO_FOLDER", f"{folder} is not empty", "the demo starts from nothing", "name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _show(shell: Shell, text: str) -> None:
    if shell.as_json:
        shell.say(text)
    else:
        click.echo(text)
        sys.stdout.flush()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
