"""`flotilla alert`: what needs a person.

I/O: clock.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import ago

Row = Mapping[str, Any]


@group
def alert() -> None:
    """What needs a person."""


def _path(alert_id: str, verb: str = "") -> str:
    return f"/alerts/{quote(alert_id, safe='')}" + (f"/{verb}" if verb else "")


@command(alert, "list", example="flotilla alert list\nflotilla alert list --all --json")
@click.option("--all", "every", is_flag=True, help="Resolved ones as well.")
@click.option("--kind", help="drift, rollout, connectivity, security, performance.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
def list_(shell: Shell, every: bool, kind: str | None, limit: int | None) -> None:
    """Show alerts, newest first."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/alerts", params={"state": "all" if every else "live", "kind": kind}, limit=limit)
    columns: list[tuple[str, str | Callable[[Row], str]]] = [
        ("ID", "id"),
        ("SEVERITY", "severity"),
        ("STATE", "state"),
        ("KIND", "kind"),
        ("SINCE", lambda row: ago(row["opened_at"], now)),
        ("WHAT", "text"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No alerts.")


@command(alert, "show", example="flotilla alert show al-7f3kq")
@click.argument("alert_id", metavar="ID")
def show(shell: Shell, alert_id: str) -> None:
    """Show all of one alert."""
    found = shell.api.get(_path(alert_id))
    shell.emit(found, lambda: text(found, datetime.now(UTC)))


@command(alert, "ack", example='flotilla alert ack al-7f3kq --note "gate lamp broken, ticket 4411"')
@click.argument("alert_id", metavar="ID")
@click.option("--note", help="What you know, for the others.")
def ack(shell: Shell, alert_id: str, note: str | None) -> None:
    """Say that you look after it."""
    shell.emit(shell.api.post(_path(alert_id, "ack"), json=_note(note)), f"{alert_id} acknowledged.")
    shell.say(f"When it is over: flotilla alert resolve {alert_id}")


@command(alert, "resolve", example='flotilla alert resolve al-7f3kq --note "lamp replaced"')
@click.argument("alert_id", metavar="ID")
@click.option("--note", help="How it was solved.")
def resolve(shell: Shell, alert_id: str, note: str | None) -> None:
    """Say that it is over. If its cause goes on, a new alert opens."""
    shell.emit(shell.api.post(_path(alert_id, "resolve"), json=_note(note)), f"{alert_id} resolved.")


def text(found: Row, now: datetime) -> str:
    """One alert for people."""
    lines = [
        f"{found['id']}  {found['severity']}  {found['state']}  {found['kind']} in {found['scope']}",
        f"  {found['text']}",
        f"  opened {ago(found['opened_at'], now)}, last seen {ago(found['updated_at'], now)}",
    ]
    if found["acknowledged_by"]:
        lines.append(f"  {found['acknowledged_by']} looks after it")
    if found["note"]:
        lines.append(f"  note: {found['note']}")
    if found["state"] == "open":
        lines.append(f"  Next: flotilla alert ack {found['id']}")
    return "\n".join(lines)


def _note(note: str | None) -> dict[str, str]:
    return {"note": note} if note else {}
