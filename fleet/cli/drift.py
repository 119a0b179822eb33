"""`flotilla drift`: how live data differs from the reference data.

I/O: clock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import click

from fleet.cli import performance
from fleet.cli.baselines import baseline
from fleet.cli.reports import report
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import ago

Row = Mapping[str, Any]
Column = tuple[str, str | Callable[[Row], str]]

_MARKS: Final = {"drifted": "✖ drifted", "warning": "▲ warning", "ok": "✔ ok", "collecting": "… collecting"}
_GRAVEST: Final = ("drifted", "warning", "ok", "collecting")


@group
def drift() -> None:
    """How live data differs from the reference data."""


drift.add_command(baseline)
drift.add_command(report)


@command(drift, "status", example="flotilla drift status\nflotilla drift status --json")
def status(shell: Shell) -> None:
    """Show one line for each release and device: its worst feature."""
    found = shell.api.get("/drift")
    rows = found["items"]
    shell.table(worst(rows), _columns(datetime.now(UTC)), document={"items": rows}, empty="No telemetry has come yet.")
    _tell_withdrawn(shell, found, rows)


@command(drift, "show", example="flotilla drift show digits\nflotilla drift show digits --device cam-7")
@click.argument("model", metavar="MODEL[@VERSION]")
@click.option("--device", help="Of one device.")
@click.option("--fleet", "whole", is_flag=True, help="Of all devices together.")
def show(shell: Shell, model: str, device: str | None, whole: bool) -> None:
    """Show every feature of one model with all distances, and how well and how fast it answers."""
    model, _, version = model.partition("@")
    scope = "fleet" if whole else f"device:{device}" if device else None
    found = shell.api.get(f"/drift/{quote(model, safe='')}", params={"scope": scope})
    if version:
        shell.api.get(f"/models/{quote(model, safe='')}/versions/{quote(version, safe='')}")
        found = {**found, **{key: _of(found.get(key, ()), version) for key in ("items", "performance")}}
    if not found["items"] and not found.get("performance"):  # nothing yet, or the manager knows no such name
        shell.api.get(f"/models/{quote(model, safe='')}/versions", params={"limit": 1})
        if device:
            shell.api.get(f"/devices/{quote(device, safe='')}")
    rows = sorted(found["items"], key=lambda row: (row["scope"], _GRAVEST.index(row["state"]), -row["psi_corrected"]))
    columns: list[Column] = [
        ("SCOPE", "scope"),
        ("VERSION", "version"),
        ("FEATURE", "feature"),
        ("SAMPLES", samples),
        ("PSI", psi),
        ("KL", lambda row: f"{row['kl']:.3f}"),
        ("JS", lambda row: f"{row['js_distance']:.3f}"),
        ("KS", lambda row: f"{row['ks']:.3f}"),
        ("P", lambda row: f"{row.get('calibrated_p', row['p']):.1e}"),
        ("STATE", lambda row: _MARKS[row["state"]]),
    ]
    shell.table(
        rows, columns, document=found, empty=f"No telemetry of {model} has come yet. Next: flotilla drift status"
    )
    _tell_withdrawn(shell, found, rows)
    if rows and not shell.as_json:
        shell.say(str(rows[0]["text"]))
        for row in rows:
            if "accuracy_estimate" in row:
                shell.say(f"{row['scope']} {row['version']}: {row['accuracy_estimate']['text']}")
    shown = [one for one in found.get("performance", ()) if one["scope"] == (scope or "fleet")]
    for line in () if shell.as_json else performance.lines(shown, datetime.now(UTC)):
        shell.say(line)


def _tell_withdrawn(shell: Shell, found: Row, rows: Sequence[Row]) -> None:
    shown = {f"{row['model']}@{row['version']}" for row in rows}
    for release, reason in found.get("withdrawn", {}).items():
        if release in shown and not shell.as_json:
            shell.say(f"{release} is withdrawn: {reason}")


def _of(rows: Sequence[Row], version: str) -> list[Row]:
    return [row for row in rows if row["version"] == version]


def worst(rows: Sequence[Row]) -> list[Row]:
    """Of each release in each scope, the feature in the gravest state with the largest distance."""
    found: dict[tuple[str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (_GRAVEST.index(row["state"]), -row["psi_corrected"])):
        found.setdefault((row["model"], row["version"], row["scope"]), row)
    return sorted(found.values(), key=lambda row: (row["model"], row["version"], row["scope"]))


def samples(row: Row) -> str:
    """`240`, or `40 of 100` while they are collected."""
    return f"{row['samples']} of {row['min_samples']}" if row["state"] == "collecting" else str(row["samples"])


def psi(row: Row) -> str:
    """The corrected index, or nothing while samples are collected."""
    return "–" if row["state"] == "collecting" else f"{max(0.0, row['psi_corrected']):.2f}"


def _columns(now: datetime) -> list[Column]:
    return [
        ("MODEL@VERSION", lambda row: f"{row['model']}@{row['version']}"),
        ("SCOPE", "scope"),
        ("SAMPLES", samples),
        ("PSI", psi),
        ("STATE", lambda row: _MARKS[row["state"]]),
        ("SINCE", lambda row: ago(row["since"], now)),
        ("TOP FEATURE", "feature"),
    ]
