"""`flotilla status` and `flotilla open`: the fleet in a few lines, or in a browser.

I/O: disk, process, clock.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from shutil import which
from typing import Any, Final

import click

from fleet.cli import portrait
from fleet.cli.errors import CliError
from fleet.cli.shell import Shell, command
from fleet.cli.wording import ago

_OVER: Final = frozenset({"completed", "aborted", "rolled-back", "failed"})
_PAGES: Final = ("fleet", "rollouts")


@command(name="status", example="flotilla status\nflotilla status --json")
def status(shell: Shell) -> None:
    """How the fleet is doing: devices, versions, rollouts that run, alerts that are open."""
    api = shell.api
    devices, rollouts = api.pages("/devices"), api.pages("/rollouts", limit=100)
    alerts = [alert for alert in api.pages("/alerts", limit=500) if alert.get("state") != "resolved"]
    found = summary(devices, [one for one in rollouts if one.get("state") not in _OVER], alerts)
    found |= _role(shell) | _backup(shell)
    shell.emit({"manager": shell.session.url, **found}, lambda: text(shell.session.url, found, datetime.now(UTC)))


def _role(shell: Shell) -> dict[str, Any]:
    """Which of several managers this one is, and where the one that leads is; None while it is not ready."""
    try:
        ready = shell.api.get("//readyz") or {}
    except CliError:
        ready = {}
    return {"role": ready.get("role"), "leader": ready.get("leader")}


def _backup(shell: Shell) -> dict[str, Any]:
    """When the last backup was made, and what is wrong with that; a manager of before knows nothing of it."""
    try:
        answer = shell.api.get("/backups", params={"limit": 1})
    except CliError:
        return {"backup": None}
    last = answer["items"][0]["at"] if answer["items"] else None
    return {"backup": {"last": last, "worry": answer.get("worry")}}


def summary(
    devices: Sequence[Mapping[str, Any]], rollouts: Sequence[Mapping[str, Any]], alerts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The document of `status --json`: counts, and what is going on."""
    versions = Counter(
        f"{model}@{version}" for device in devices for model, version in (device.get("serving") or {}).items()
    )
    return {
        "devices": {"total": len(devices), **dict(Counter(portrait.link(device) for device in devices))},
        "serving": dict(versions.most_common()),
        "rollouts": list(rollouts),
        "alerts": list(alerts),
    }


def text(url: str, found: Mapping[str, Any], now: datetime) -> str:
    """The lines of `status`."""
    counts = dict(found["devices"])
    total = counts.pop("total")
    links = ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "flotilla device invite"
    serving = ", ".join(f"{release} on {number}" for release, number in found["serving"].items()) or "nothing yet"
    follows = found.get("role") == "follower"
    leader = f" (follows {found.get('leader') or 'nobody: the next leader is awaited'})" if follows else ""
    lines = [f"manager   {url}{leader}", f"devices   {total}: {links}", f"serving   {serving}"]
    lines += [
        f"rollout   {one.get('id')} {one.get('model')}@{one.get('version')} {one.get('state')}"
        for one in found["rollouts"]
    ] or ["rollouts  none running"]
    lines += [
        f"alert     {one.get('id')} {one.get('severity')}: {one.get('text')} ({ago(one.get('opened_at'), now)})"
        for one in found["alerts"]
    ] or ["alerts    none open"]
    if (found.get("backup") or {}).get("worry"):
        lines.append(f"backup    {found['backup']['worry']}: flotilla backup create")
    return "\n".join(lines)


@command(name="open", example="flotilla open\nflotilla open rollouts")
@click.argument("page", type=click.Choice(_PAGES), default="fleet")
def open_(shell: Shell, page: str) -> None:
    """Open the dashboard in a browser, or show its address where there is none."""
    address = f"{shell.session.url}/{page}"
    shell.emit({"url": address}, address)
    opener = which("open" if sys.platform == "darwin" else "xdg-open")
    if shell.tty and opener:
        subprocess.run([opener, address], check=False, timeout=10, capture_output=True)
    shell.say("It asks for your token once: `flotilla config path` shows where it is kept.")
