"""`flotilla alert`: what needs a person, who is told, and what is not told to anybody.

I/O: clock.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Column, Shell, command, group
from fleet.cli.wording import ago, duration, instant, pairs, span

Row = Mapping[str, Any]


@group
def alert() -> None:
    """What needs a person."""


def _path(alert_id: str, verb: str = "") -> str:
    return f"/alerts/{quote(alert_id, safe='')}" + (f"/{verb}" if verb else "")


@command(alert, "list", example="flotilla alert list\nflotilla alert list --all --json")
@click.option("--all", "every", is_flag=True, help="Resolved ones as well.")
@click.option("--kind", help="drift, performance, rollout, deployment, connectivity, security, expiry.")
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


@command(
    alert,
    "silence",
    example='flotilla alert silence al-7f3kq --for 8h --comment "gate is rebuilt"\n'
    'flotilla alert silence --kind connectivity --label site=gate --for 2d --comment "power works"',
)
@click.argument("alert_id", metavar="[ID]", required=False)
@click.option("--kind", help="Alerts of this kind; * and ? stand for any text, any sign.")
@click.option("--scope", help="Such as fleet or device:cam-1.")
@click.option("--subject", help="Such as 'digits@1.1.0 *'.")
@click.option("--severity", type=click.Choice(["low", "medium", "high", "critical"]), help="Alerts of this severity.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of the device; site=NAME as well.")
@click.option("--for", "length", default="8h", show_default=True, help="How long, such as 30m, 8h, 2d.")
@click.option("--comment", required=True, help="Why, for the others.")
def silence(
    shell: Shell, alert_id: str | None, labels: tuple[str, ...], length: str, comment: str, **traits: str | None
) -> None:
    """Do not tell anybody of one alert, or of all that fit. They stay in the list, marked as silenced."""
    matcher: dict[str, Any] = {key: value for key, value in traits.items() if value}
    if labels:
        matcher["labels"] = pairs(labels)
    if bool(alert_id) == bool(matcher):
        what = "name one alert, or say which ones by --kind, --scope, --subject, --severity, --label"
        raise CliError("E_USAGE", "what shall be silent?", what, "flotilla alert silence --help", Exit.USAGE)
    body: dict[str, Any] = {"seconds": int(duration(length).total_seconds()), "comment": comment}
    body |= {"alert": alert_id} if alert_id else {"matcher": matcher}
    made = shell.api.post("/silences", json=body)
    shell.emit(made, f"{made['id']} holds until {made['until']}.")
    shell.say(f"To end it before: flotilla alert unsilence {made['id']}")


@command(alert, "silences", example="flotilla alert silences")
@click.option("--all", "every", is_flag=True, help="Those that are over as well.")
def silences(shell: Shell, every: bool) -> None:
    """Show what is silenced, by whom, why and for how long."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/silences", params={"state": "all" if every else "valid"})
    columns: list[Column] = [
        ("ID", "id"),
        ("WHAT", lambda row: _matched(row["matcher"])),
        ("ENDS", lambda row: _ends(row, now)),
        ("BY", "created_by"),
        ("WHY", "comment"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="Nothing is silenced.")


@command(alert, "unsilence", example="flotilla alert unsilence si-3fk2m9qa")
@click.argument("silence_id", metavar="ID")
def unsilence(shell: Shell, silence_id: str) -> None:
    """End a silence. Alerts that it covered are told again."""
    shell.emit(shell.api.delete(f"/silences/{quote(silence_id, safe='')}"), f"{silence_id} is over.")


@command(alert, "channels", example="flotilla alert channels")
def channels(shell: Shell) -> None:
    """Show where alerts are told and how that goes. Secrets are never shown."""
    now = datetime.now(UTC)
    rows = shell.api.get("/channels")["items"]
    columns: list[Column] = [
        ("CHANNEL", "name"),
        ("KIND", "kind"),
        ("STATE", "state"),
        ("TOLD", "notified"),
        ("WAITING", "waiting"),
        ("LAST", lambda row: ago(row.get("delivered_at"), now)),
        ("TO", "target"),
        ("ERROR", "error"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No channels. See docs/alerts.md.")


@command(alert, "test", example="flotilla alert test email")
@click.argument("channel")
def test(shell: Shell, channel: str) -> None:
    """Send a test message through a channel and tell what happened. Exit code 1 if it did not get through."""
    found = shell.api.post(f"/channels/{quote(channel, safe='')}/test")
    if found["delivered"]:
        shell.emit(found, f"{channel}: delivered, {found['answer']}")
        return
    shell.emit(found, f"{channel}: not delivered, {found['code']}: {found['answer']}")
    shell.say(f"  try   {found['hint']}")
    shell.exit(1)


@command(alert, "deliveries", example="flotilla alert deliveries --channel email --limit 20")
@click.option("--channel", help="Of one channel.")
@click.option("--state", type=click.Choice(["pending", "delivered", "refused", "given-up"]), help="In this state.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
def deliveries(shell: Shell, channel: str | None, state: str | None, limit: int) -> None:
    """Show the delivery log: which message went to which channel, and what was answered."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/deliveries", params={"channel": channel, "state": state}, limit=limit)
    columns: list[Column] = [
        ("ID", "id"),
        ("CHANNEL", "channel"),
        ("WHAT", "purpose"),
        ("STATE", "state"),
        ("TRIES", lambda row: str(row["attempts"])),
        ("OWED", lambda row: ago(row["owed_at"], now)),
        ("ALERTS", lambda row: ", ".join(row["alerts"][:3]) + (" …" if len(row["alerts"]) > 3 else "")),
        ("ANSWER", "outcome"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="Nothing was owed to any channel yet.")


def _matched(matcher: Row) -> str:
    labels = [f"{key}={value}" for key, value in matcher.get("labels", {}).items()]
    return " ".join([f"{key}:{value}" for key, value in matcher.items() if key != "labels"] + labels)


def _ends(row: Row, now: datetime) -> str:
    if row["ended_at"]:
        return f"ended by {row['ended_by']}"
    left = (instant(row["until"]) - now).total_seconds()
    return f"in {span(left)}" if left > 0 else "over"


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
    if found["state"] in ("open", "escalated"):
        lines.append(f"  Next: flotilla alert ack {found['id']}")
    return "\n".join(lines)


def _note(note: str | None) -> dict[str, str]:
    return {"note": note} if note else {}
