"""`flotilla doctor`: what is wrong between you, the manager and the devices, and how to repair it.

I/O: disk, clock.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Final, Literal

from fleet.cli import session
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command

_MARKS: Final = {"pass": "✔", "warn": "▲", "fail": "✖"}
_CLOCK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["pass", "warn", "fail"]
    text: str
    fix: str = ""


@command(name="doctor", example="flotilla doctor\nflotilla doctor --json")
def doctor(shell: Shell) -> None:
    """Look at settings, manager, access and devices. Exit code 1 when something is broken."""
    findings = list(_look(shell))
    failed = sum(finding.state == "fail" for finding in findings)
    warned = sum(finding.state == "warn" for finding in findings)
    document = {"findings": [asdict(finding) for finding in findings], "failed": failed, "warned": warned}
    shell.emit(document, lambda: "\n".join(map(_line, findings)))
    shell.say(f"{failed} broken, {warned} to look at.")
    if failed:
        shell.exit(Exit.FAILED)


def _line(finding: Finding) -> str:
    fix = f"  → {finding.fix}" if finding.fix else ""
    return f"{_MARKS[finding.state]} {finding.name:<9} {finding.text}{fix}"


def _look(shell: Shell) -> Iterator[Finding]:
    try:
        shell.session  # noqa: B018  # reads the file
    except CliError as error:
        yield _failed("settings", error)
        return
    yield _settings()
    try:
        ready = shell.api.get("//readyz") or {}
        yield Finding("manager", "pass", f"{shell.session.url} is ready")
        if str(ready.get("trust", "initialised")) != "initialised":
            yield _trust(str(ready["trust"]))
        yield _clock(shell.api.answered.get("date"), datetime.now(UTC))
    except CliError as error:
        yield _failed("manager", error)
        return
    try:
        who = shell.api.get("/me")
        yield Finding("access", "pass", f"{who.get('name')} ({who.get('role')})")
        yield from devices(shell.api.pages("/devices"))
        yield from alerts(shell.api.pages("/alerts", limit=500))
        yield _audit(shell)
        yield _backup(shell)
    except CliError as error:
        yield _failed("access", error)


def _trust(said: str) -> Finding:
    if said.startswith("restored"):
        text = "restored from a backup: devices believe nothing before it is signed anew"
        return Finding("trust", "warn", text, "flotilla init, where the release keys are")
    return Finding("trust", "warn", "no keys are trusted yet: nothing can be published", "flotilla init")


def _failed(name: str, error: CliError) -> Finding:
    return Finding(name, "fail", f"{error.code}: {error.what}" + (f" ({error.why})" if error.why else ""), error.try_)


def _settings() -> Finding:
    path, own = session.file_path(), version("flotilla-edge")
    if not path.exists():
        return Finding("settings", "pass", f"flotilla {own}, no {path.name}")
    if path.stat().st_mode & 0o077:
        return Finding("settings", "warn", f"others may read your token in {path}", f"chmod 600 {path}")
    return Finding("settings", "pass", f"flotilla {own}, {path}")


def _clock(date: str | None, now: datetime) -> Finding:
    if date is None:
        return Finding("clock", "warn", "the manager tells no time")
    apart = abs((parsedate_to_datetime(date) - now).total_seconds())
    if apart > _CLOCK_SECONDS:
        return Finding(
            "clock", "warn", f"this machine and the manager are {apart:.0f} s apart", "timedatectl set-ntp true"
        )
    return Finding("clock", "pass", "agrees with the manager's")


def devices(found: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What the list of devices shows."""
    active = [one for one in found if one.get("lifecycle") == "active"]
    away = [str(one.get("id")) for one in active if not one.get("online")]
    waiting = [str(one.get("id")) for one in found if one.get("lifecycle") == "pending"]
    if waiting:
        yield Finding("waiting", "warn", _names(waiting), f"flotilla device accept {waiting[0]}")
    if away:
        yield Finding(
            "devices", "warn", f"{len(away)} of {len(active)} offline: {_names(away)}", "flotilla device list"
        )
    else:
        yield Finding("devices", "pass", f"all {len(active)} online" if active else "none yet")


def alerts(found: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What the list of alerts shows."""
    waiting = [one for one in found if one.get("state") in ("open", "escalated")]
    if waiting:
        yield Finding("alerts", "warn", f"{len(waiting)} open, first: {waiting[0].get('text')}", "flotilla alert list")
    else:
        yield Finding("alerts", "pass", "none open")


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _backup(shell: Shell) -> Finding:
    try:
        worry = shell.api.get("/backups", params={"limit": 1}).get("worry")
    except CliError as error:
        if error.exit == Exit.NOT_FOUND:
            return Finding("backup", "pass", "this manager is older than backups")
        raise
    if worry is None:
        return Finding("backup", "pass", "nothing to say")
    return Finding("backup", "warn", str(worry), "flotilla backup create")


def _audit(shell: Shell) -> Finding:
    try:
        broken = shell.api.get("/audit/verify").get("first_broken")
    except CliError as error:
        if error.exit == Exit.NOT_ALLOWED:
            return Finding("audit", "pass", "not for this role to see")
        raise
    if broken is None:
        return Finding("audit", "pass", "the chain is intact")
    return Finding("audit", "fail", f"the chain is broken at row {broken}", "flotilla audit export > audit.jsonl")
