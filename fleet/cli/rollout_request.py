"""What `rollout plan`, `rollout start` and `schedule` take on the command line, as the API takes it.

I/O: none.
"""

from collections.abc import Callable
from typing import Any, Final

import click

from fleet.cli import shadow_terms
from fleet.cli.errors import CliError, Exit
from fleet.cli.wording import duration, pairs

STRATEGIES: Final = ("canary", "rolling", "blue-green", "all-at-once")
EFFECTS: Final = "stop-new, cancel-queued, interrupt, roll-back"
ALL_EFFECTS: Final = EFFECTS.split(", ")
PRIORITIES: Final = ("low", "normal", "high", "critical")


def options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that describe a rollout, for `plan` and `start`."""
    for option in reversed(
        (
            click.argument("release", metavar="NAME@VERSION"),
            click.option(
                "--target",
                default="all",
                show_default=True,
                help="`all`, ids `cam-1,cam-2`, `site:NAME`, `channel:NAME`, `label:KEY=VALUE` (several with commas).",
            ),
            click.option("--filter", "wanted", metavar="TEXT", help="Only devices that fit, such as `hardware:orin*`."),
            click.option("--waves", help="Growing counts or percentages, such as `1,25%,100%`. [5%,25%,50%,100%]"),
            click.option("--bake", help="Watch each wave so long before the next one. [5m]"),
            click.option("--strategy", type=click.Choice(STRATEGIES), default="canary", show_default=True),
            click.option("--batch", type=click.IntRange(1), help="Devices at a time (rolling). [3]"),
            click.option("--delay", help="Between batches (rolling). [0s]"),
            click.option("--timeout", help="A device that has not finished by then counts as failed."),
            click.option("--rollback/--no-rollback", "back", default=None, help="Go back by itself when a gate fails."),
            click.option("--on-failure", metavar="EFFECTS", help=f"What a stop does: {EFFECTS}, with commas."),
            click.option("--require-approval", is_flag=True, default=None, help="Another person has to approve it."),
            click.option("--manual", is_flag=True, default=None, help="Each wave after the first needs approval."),
            click.option(
                "--stage-ratio",
                type=click.FloatRange(0, 100, min_open=True),
                metavar="PERCENT",
                help="Staged before the switch (blue-green). [100]",
            ),
            click.option(
                "--rate", metavar="N[:FACTOR:EVERY]", help="Devices a minute; times FACTOR after EVERY successes."
            ),
            click.option("--site-bytes", type=click.IntRange(1), metavar="BYTES", help="In flight to one site."),
            click.option(
                "--site-hourly-bytes", type=click.IntRange(1), metavar="BYTES", help="To one site in an hour."
            ),
            click.option("--force", is_flag=True, default=None, help="Also where the release is proven bad."),
            click.option("--max-errors", type=click.FloatRange(0, 100), metavar="PERCENT", help="Of requests."),
            click.option("--max-p95", type=click.FloatRange(0, min_open=True), metavar="MS", help="Latency."),
            click.option("--in-window", is_flag=True, help="Devices swap inside the maintenance window only."),
            click.option("--window", metavar="START-END", help="Another window than that of the manager: 22:00-05:00."),
            click.option("--priority", type=click.Choice(PRIORITIES), help="Goes before rollouts of lower priority."),
            click.option("--webhook", help="Ask a channel of kind webhook, or a URL, before each wave goes on."),
            click.option("--max-psi", type=click.FloatRange(0, min_open=True), metavar="PSI", help="Drift."),
            click.option(
                "--shadow",
                metavar="TERMS",
                help="First let it look on beside what serves: `10%`, or "
                "`share=10%,samples=200,agreement=95%,latency=3,time=10m,few=go-on|hold|fail,stay`.",
            ),
            click.option(
                "--min-agreement",
                type=click.FloatRange(0, 100),
                metavar="PERCENT",
                help="Of the shadow, proven before the next wave.",
            ),
        )
    ):
        function = option(function)
    return function


def body(**asked: Any) -> dict[str, Any]:
    release = str(asked["release"])
    model, at, version = release.partition("@")
    if not at or not version:
        raise CliError("E_USAGE", f"{release!r} is not NAME@VERSION", "", "such as digits@1.1.0", Exit.USAGE)
    body = {
        "model": model,
        "version": version,
        "target": _target(asked["target"], asked["wanted"]),
        "strategy": asked["strategy"],
        "waves": [part.strip() for part in asked["waves"].split(",")] if asked["waves"] else None,
        "bake_seconds": _seconds(asked["bake"]),
        "batch_size": asked["batch"],
        "delay_seconds": _seconds(asked["delay"]),
        "timeout_seconds": _seconds(asked["timeout"]),
        "auto_rollback": asked["back"],
        "on_failure": effects(asked["on_failure"]),
        "priority": asked["priority"],
        "require_approval": asked["require_approval"],
        "manual": asked["manual"],
        "stage_ratio": _share(asked["stage_ratio"]),
        "ramp": _ramp(asked["rate"]),
        "site_budget": _given(in_flight_bytes=asked["site_bytes"], hourly_bytes=asked["site_hourly_bytes"]),
        "force": asked["force"],
        "window": hours(asked["window"]) or ("settings" if asked["in_window"] else None),
        "gate": _given(
            max_error_ratio=_share(asked["max_errors"]),
            max_latency_ms=asked["max_p95"],
            max_psi=asked["max_psi"],
            webhook=_webhook(asked["webhook"]),
            min_shadow_agreement=_share(asked["min_agreement"]),
        ),
        "shadow": None if asked["shadow"] is None else shadow_terms.read(asked["shadow"]),
    }
    return {key: value for key, value in body.items() if value is not None}


def _given(**values: Any) -> dict[str, Any] | None:
    return {key: value for key, value in values.items() if value is not None} or None


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _ramp(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    first, *more = text.split(":")
    try:
        if len(more) not in (0, 2):
            raise ValueError
        return {"per_minute": float(first), **({"factor": float(more[0]), "every": int(more[1])} if more else {})}
    except ValueError:
        raise CliError("E_USAGE", f"{text!r} is not a rate", "", "such as 2, or 2:2:10", Exit.USAGE) from None


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    return 0.0 if text.strip() in {"0", "0s", "0m"} else duration(text).total_seconds()


def _webhook(said: str | None) -> dict[str, str] | None:
    return None if said is None else {"url" if "://" in said else "channel": said}


def _target(text: str, wanted: str | None) -> str | dict[str, Any]:
    found = target_of(text)
    if wanted is None:
        return found
    return {"filter": wanted} if isinstance(found, str) else {**found, "filter": wanted}


def hours(text: str | None) -> dict[str, str] | None:
    """`22:00-05:00` as the API takes it.

    Raises:
        CliError: another form.
    """
    if text is None:
        return None
    start, dash, end = text.partition("-")
    if not dash:
        raise CliError("E_USAGE", f"{text!r} is not START-END", "", "such as 22:00-05:00", Exit.USAGE)
    return {"start": start.strip(), "end": end.strip()}


def target_of(text: str) -> str | dict[str, Any]:
    kind, colon, rest = text.partition(":")
    if text == "all":
        return "all"
    if colon and kind == "site":
        return {"site": rest}
    if colon and kind == "channel":
        return {"channel": rest}
    if colon and kind == "label":
        return {"labels": pairs(rest.split(","))}
    if colon:
        raise CliError("E_USAGE", f"{text!r} is not a target", "", "flotilla rollout start --help", Exit.USAGE)
    return {"ids": [part.strip() for part in text.split(",") if part.strip()]}


def effects(text: str | None) -> list[str] | None:
    if text is None:
        return None
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found or (unknown := [part for part in found if part not in ALL_EFFECTS]):
        wrong = unknown[0] if found else text
        raise CliError("E_USAGE", f"{wrong!r} is not an effect of a stop", "", f"use {EFFECTS}", Exit.USAGE)
    return found
