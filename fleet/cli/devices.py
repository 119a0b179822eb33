"""`flotilla device`: invite, look at, label, accept, revoke, roll back.

I/O: clock.
"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from fleet.cli import portrait
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import duration, pairs


@group
def device() -> None:
    """Devices of the fleet."""


def _path(device_id: str, action: str = "") -> str:
    return f"/devices/{quote(device_id, safe='')}" + (f"/{action}" if action else "")


@command(
    device,
    "invite",
    example="flotilla device invite\nflotilla device invite --label site=gate --uses 8 --expires 2h --wait-for-accept",
)
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1, 100_000), help="How many devices.")
@click.option("--expires", default="24h", show_default=True, help="How long the invitation is valid.")
@click.option("--site", help="Site of the devices that use it.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label of the devices; repeatable.")
@click.option("--wait-for-accept", is_flag=True, help="Devices wait for `flotilla device accept`.")
def invite(
    shell: Shell, uses: int, expires: str, site: str | None, labels: tuple[str, ...], wait_for_accept: bool
) -> None:
    """Make a claim token, with which devices enrol themselves. It is shown once."""
    body: dict[str, Any] = {
        "uses": uses,
        "expires_seconds": int(duration(expires).total_seconds()),
        "labels": pairs(labels),
        "auto_accept": not wait_for_accept,
        **({"site": site} if site else {}),
    }
    made = shell.api.post("/invites", json=body)
    shell.emit(made, str(made["token"]))
    shell.say(f"Valid for {expires}, {uses} device{'s' if uses > 1 else ''}.")
    shell.say(f"On the device:  flotilla-agent enroll {made.get('manager_url') or shell.session.url} --token TOKEN")


@command(device, "list", example="flotilla device list\nflotilla device list --filter lifecycle:pending --json")
@click.option("--filter", "wanted", metavar="TEXT", help="Only some, such as `online:false`, `site:gate`, `cam*`.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
def list_(shell: Shell, wanted: str | None, limit: int | None) -> None:
    """Show the devices: connected or not, and what they serve."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/devices", params={"filter": wanted}, limit=limit)
    shell.table(rows, portrait.columns(now), document={"items": rows}, empty="No devices. Next: flotilla device invite")


@command(device, "show", example="flotilla device show cam-7")
@click.argument("device_id", metavar="ID")
def show(shell: Shell, device_id: str) -> None:
    """Show all that is known of one device."""
    found = shell.api.get(_path(device_id))
    shell.emit(found, lambda: portrait.text(found, datetime.now(UTC)))


@command(device, "label", example="flotilla device label cam-7 site=gate lens=wide\nflotilla device label cam-7 lens-")
@click.argument("device_id", metavar="ID")
@click.argument("changes", metavar="KEY=VALUE|KEY-", nargs=-1, required=True)
def label(shell: Shell, device_id: str, changes: tuple[str, ...]) -> None:
    """Set labels (KEY=VALUE) or remove them (KEY-)."""
    gone = {change[:-1] for change in changes if change.endswith("-") and "=" not in change}
    fresh = pairs(change for change in changes if change[:-1] not in gone or "=" in change)
    old = shell.api.get(_path(device_id)).get("labels") or {}
    labels = {**{key: value for key, value in old.items() if key not in gone}, **fresh}
    found = shell.api.patch(_path(device_id), json={"labels": labels})
    words = ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "no labels"
    shell.emit(found, f"{device_id}: {words}")


@command(device, "set", example="flotilla device set cam-7 --timezone Europe/Berlin --channel candidate")
@click.argument("device_id", metavar="ID")
@click.option("--timezone", help="IANA time zone that its maintenance windows are meant in; empty: the manager's.")
@click.option("--channel", help="The alias of models that it follows; empty: `stable`.")
def set_(shell: Shell, device_id: str, timezone: str | None, channel: str | None) -> None:
    """Set when a device may change, and which alias of a model it follows."""
    said = {key: value for key, value in (("timezone", timezone), ("channel", channel)) if value is not None}
    if not said:
        raise CliError("E_USAGE", "nothing to set", "", "give --timezone or --channel", Exit.USAGE)
    found = shell.api.patch(_path(device_id), json=said)
    words = ", ".join(f"{key} {found['labels'].get(key) or 'as the manager says'}" for key in said)
    shell.emit(found, f"{device_id}: {words}")


@command(device, "accept", example="flotilla device accept cam-7")
@click.argument("device_id", metavar="ID")
def accept(shell: Shell, device_id: str) -> None:
    """Let a waiting device in."""
    shell.emit(shell.api.post(_path(device_id, "accept")), f"{device_id} is in.")


@command(device, "reject", example="flotilla device reject cam-7 --yes")
@click.argument("device_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reject(shell: Shell, device_id: str, yes: bool) -> None:
    """Send a waiting device away."""
    shell.confirm(f"{device_id} is sent away and must enrol anew. Continue?", yes=yes)
    shell.emit(shell.api.post(_path(device_id, "reject")), f"{device_id} was sent away.")


@command(device, "revoke", example="flotilla device revoke cam-7 --yes")
@click.argument("device_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(shell: Shell, device_id: str, yes: bool) -> None:
    """Shut a device out for good: no messages, no keys. It keeps serving what it has."""
    shell.confirm(f"{device_id} is shut out for good. Continue?", yes=yes)
    shell.emit(shell.api.post(_path(device_id, "revoke")), f"{device_id} is shut out.")


@command(device, "rollback", example="flotilla device rollback cam-7 --plan\nflotilla device rollback cam-7 --yes")
@click.argument("device_id", metavar="ID")
@click.option("--model", help="Which model, if the device has several.")
@click.option("--plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(shell: Shell, device_id: str, model: str | None, plan: bool, yes: bool) -> None:
    """Send one device back to the version in its other slot: seconds, no download."""
    path = _path(device_id, "rollback")
    found = shell.api.post(path, params={"model": model, "dry_run": True})
    what = f"{found['device']} goes from {found['model']} {found['from']} back to {found['to']}, without download"
    if plan:
        shell.emit(found, f"Plan: {what}.")
        return
    shell.confirm(f"{what}. Continue?", yes=yes)
    shell.emit(shell.api.post(path, params={"model": model}), f"Told: {what}.")
    shell.say(f"Next: flotilla device watch {device_id}")


@command(device, "metrics", example="flotilla device metrics cam-7 --json")
@click.argument("device_id", metavar="ID")
def metrics(shell: Shell, device_id: str) -> None:
    """Show requests, errors, latency and host figures of the last windows."""
    found = shell.api.get(_path(device_id, "metrics"))
    rows = found["items"] if isinstance(found, dict) and "items" in found else [found]
    shell.table(rows, portrait.METRICS, document=found, empty=f"{device_id} has sent no window yet.")


@command(device, "watch", example="flotilla device watch cam-7\nflotilla device watch --json")
@click.argument("device_id", metavar="[ID]", required=False)
def watch(shell: Shell, device_id: str | None) -> None:
    """Follow what happens, one line each, until Ctrl-C."""
    if device_id is not None:
        device_id = str(shell.api.get(f"/devices/{quote(device_id, safe='')}")["id"])
    shell.say("Following; Ctrl-C ends it.")
    for event in shell.api.stream("/events"):
        if device_id is None or device_id in str(event.get("subject", "")).split("/"):
            moment, level = str(event.get("at", ""))[11:19], str(event.get("level", ""))
            shell.line(event, f"{moment} {level:<4} {event.get('subject', '')} {event.get('text', '')}")
    again = f"flotilla device watch {device_id or ''}".rstrip()
    raise CliError("E_STREAM", "the manager ended the stream", "", again, Exit.UNREACHABLE)
