"""`flotilla schedule`: rollouts for later, once or again and again.

I/O: clock.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.rollout_request import PRIORITIES, hours, target_of
from fleet.cli.shell import Column, Shell, command, group
from fleet.cli.wording import duration, instant, span

Row = Mapping[str, Any]


@group
def schedule() -> None:
    """Rollouts for later, once or again and again."""


def _path(schedule_id: str, verb: str = "") -> str:
    return f"/schedules/{quote(schedule_id, safe='')}" + (f"/{verb}" if verb else "")


@command(
    schedule,
    "add",
    example="flotilla schedule add digits@1.2.0 --at 2026-12-01T02:00 --zone Europe/Berlin\n"
    'flotilla schedule add digits@stable --cron "0 22 * * sat" --target site:gate --priority high',
)
@click.argument("release", metavar="NAME@VERSION|ALIAS")
@click.option("--at", metavar="TIME", help="When, such as 2026-12-01T02:00; wall time of --zone.")
@click.option("--cron", metavar="TEXT", help="Again and again: minute, hour, day, month, weekday.")
@click.option("--zone", help="IANA time zone of --at and --cron. [scheduling.timezone of the manager]")
@click.option("--target", default="all", show_default=True, help="As for `flotilla rollout start`.")
@click.option("--strategy", type=click.Choice(["canary", "rolling"]), help="[canary]")
@click.option("--waves", help="Growing counts or percentages, such as `1,25%,100%`.")
@click.option("--bake", help="Watch each wave so long before the next one. [5m]")
@click.option("--batch", type=click.IntRange(1), help="Devices at a time (rolling). [3]")
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True,
              help="A higher one goes first, and takes devices that were not told yet.")  # fmt: skip
@click.option("--window", metavar="START-END", help="Devices swap inside it. [that of the manager]")
@click.option("--any-time", is_flag=True, help="Devices swap as soon as they can, without a window.")
def add(
    shell: Shell,
    release: str,
    at: str | None,
    cron: str | None,
    zone: str | None,
    target: str,
    strategy: str | None,
    waves: str | None,
    bake: str | None,
    batch: int | None,
    priority: str,
    window: str | None,
    any_time: bool,
) -> None:
    """Schedule a rollout. Devices that are reached swap inside their maintenance window, unless --any-time."""
    model, mark, version = release.partition("@")
    if not mark or not version:
        raise CliError("E_USAGE", f"{release!r} is not NAME@VERSION", "", "such as digits@1.1.0", Exit.USAGE)
    if (at is None) == (cron is None):
        raise CliError("E_USAGE", "when?", "give either --at or --cron", "such as --at 2026-12-01T02:00", Exit.USAGE)
    if any_time and window is not None:
        raise CliError("E_USAGE", "--window and --any-time", "they exclude each other", "leave one away", Exit.USAGE)
    body = {
        "model": model,
        "version": version,
        "at": at,
        "cron": cron,
        "zone": zone,
        "target": target_of(target),
        "strategy": strategy,
        "waves": [part.strip() for part in waves.split(",")] if waves else None,
        "bake_seconds": duration(bake).total_seconds() if bake else None,
        "batch_size": batch,
        "priority": priority,
        "window": hours(window),
    }
    asked: dict[str, Any] = {key: value for key, value in body.items() if value is not None}
    made = shell.api.post("/schedules", json={**asked, "window": None} if any_time else asked)
    shell.emit(made, f"{made['id']}  {made['model']}@{made['version']}  due {_when(made)}")
    shell.say(_swaps(made))
    shell.say(f"Next: flotilla schedule show {made['id']}")


@command(schedule, "list", example="flotilla schedule list\nflotilla schedule list --all --json")
@click.option("--all", "every", is_flag=True, help="Those that are over as well.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
def list_(shell: Shell, every: bool, limit: int | None) -> None:
    """Show schedules, newest first."""
    rows = shell.api.pages("/schedules", params={"state": "all" if every else "live"}, limit=limit)
    columns: list[Column] = [
        ("ID", "id"),
        ("RELEASE", lambda row: f"{row['model']}@{row['version']}"),
        ("STATE", "state"),
        ("DUE", _when),
        ("PRIORITY", "priority"),
        ("ROLLOUT", "rollout"),
        ("BY", "created_by"),
        ("REASON", "reason"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No schedules. Next: flotilla schedule add --help")


@command(schedule, "show", example="flotilla schedule show sc-7f3kq")
@click.argument("schedule_id", metavar="ID")
def show(shell: Shell, schedule_id: str) -> None:
    """Show one schedule: when it is due, what it waits for, what it started."""
    found = shell.api.get(_path(schedule_id))
    shell.emit(found, lambda: text(found, datetime.now(UTC)))


@command(schedule, "pause", example="flotilla schedule pause sc-7f3kq")
@click.argument("schedule_id", metavar="ID")
def pause(shell: Shell, schedule_id: str) -> None:
    """Let it not become due until it is resumed."""
    _steer(shell, schedule_id, "pause")


@command(schedule, "resume", example="flotilla schedule resume sc-7f3kq")
@click.argument("schedule_id", metavar="ID")
def resume(shell: Shell, schedule_id: str) -> None:
    """Let it wait for its time again."""
    _steer(shell, schedule_id, "resume")


@command(schedule, "cancel", example="flotilla schedule cancel sc-7f3kq --yes")
@click.argument("schedule_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(shell: Shell, schedule_id: str, yes: bool) -> None:
    """Never let it become due again. A rollout that it started goes on."""
    shell.confirm(f"{schedule_id} never becomes due again. Continue?", yes=yes)
    _steer(shell, schedule_id, "cancel")


def text(found: Row, now: datetime) -> str:
    """One schedule for people."""
    left = (instant(found["due"]) - now).total_seconds()
    in_time = f", in {span(left)}" if left > 0 and found["state"] in ("waiting", "paused") else ""
    lines = [
        f"{found['id']}  {found['model']}@{found['version']}  {found['state']}  priority {found['priority']}",
        f"  due      {_when(found)}{in_time}",
        f"  target   {found['target']}",
        f"  swaps    {_swaps(found)}",
    ]
    if found["rollout"]:
        lines.append(f"  rollout  {found['rollout']} ({found['runs']} so far)")
    if found["reason"]:
        lines.append(f"  {found['reason']}")
    return "\n".join(lines)


def _steer(shell: Shell, schedule_id: str, verb: str) -> None:
    found = shell.api.post(_path(schedule_id, verb))
    shell.emit(found, f"{schedule_id} is {found['state']}.")


def _when(row: Row) -> str:
    due = str(row["due"])[:16].replace("T", " ") + " UTC"
    return f"{due} ({row['cron']}, {row['zone']})" if row["cron"] else due


def _swaps(row: Row) -> str:
    if row["window"] is None:
        return "Devices swap as soon as they can."
    own = "the maintenance window of the manager's settings" if row["window"] == "settings" else row["window"]
    return f"Devices fetch at once and swap inside {own}, by their own clocks."
