"""`flotilla rollout`: plan, start, follow, and steer.

I/O: clock.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from fleet.cli import rollout_words as words
from fleet.cli import shadow_terms, verdict_words
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import duration, pairs

POLL_SECONDS: Final = 0.5
STRATEGIES: Final = ("canary", "rolling", "blue-green", "all-at-once")
EFFECTS: Final = "stop-new, cancel-queued, interrupt, roll-back"
ALL_EFFECTS: Final = EFFECTS.split(", ")
PRIORITIES: Final = ("low", "normal", "high", "critical")
OVER: Final = frozenset({"completed", "aborted", "rolled-back", "failed"})

Follow = Iterator[Mapping[str, Any]]


@group
def rollout() -> None:
    """Bring a version to devices, wave by wave."""


def _path(rollout_id: str, verb: str = "") -> str:
    return f"/rollouts/{quote(rollout_id, safe='')}" + (f"/{verb}" if verb else "")


def _asked(function: Callable[..., None]) -> Callable[..., None]:
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


@command(rollout, "plan", example="flotilla rollout plan digits@1.1.0 --waves 1,25%,100%")
@_asked
def plan(shell: Shell, **asked: Any) -> None:
    """Show what a rollout would do. Nothing is changed."""
    found = shell.api.post("/rollouts", json=_body(**asked), params={"dry_run": True})
    shell.emit(found, lambda: words.plan(found))


@command(
    rollout,
    "start",
    example="flotilla rollout start digits@1.1.0 --waves 1,25%,100% --bake 30m\n"
    "flotilla rollout start digits@1.1.0 --target site:gate --yes --watch\n"
    "flotilla rollout start digits@1.1.0 --shadow share=10%,agreement=97% --min-agreement 95",
)
@_asked
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--watch", "follow", is_flag=True, help="Follow it to its end.")
def start(shell: Shell, only_plan: bool, yes: bool, follow: bool, **asked: Any) -> None:
    """Start a rollout, after showing what it will do."""
    body = _body(**asked)
    if only_plan or not yes:
        planned = shell.api.post("/rollouts", json=body, params={"dry_run": True})
        if only_plan:
            shell.emit(planned, lambda: words.plan(planned))
            return
        shell.say(words.plan(planned))
        shell.confirm("Start?", yes=yes)
    made = shell.api.post("/rollouts", json=body)
    if not follow:
        shell.emit(made, f"{made['id']} started.")
        if made["state"] == "awaiting-approval":
            shell.say(f"Next, by another person: flotilla rollout approve {made['id']}")
        shell.say(f"Next: flotilla rollout watch {made['id']}")
        return
    shell.say(f"{made['id']} started. Watching; Ctrl-C detaches, the rollout goes on.")
    _watch(shell, made["id"], every=False)


@command(rollout, "list", example="flotilla rollout list --state active")
@click.option("--state", help="`active`, or a state such as `completed`.")
@click.option("--model", help="Of one model.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
def list_(shell: Shell, state: str | None, model: str | None, limit: int | None) -> None:
    """Show rollouts, newest first."""
    rows = shell.api.pages("/rollouts", params={"state": state, "model": model}, limit=limit)
    columns: list[tuple[str, str | Callable[[Mapping[str, Any]], str]]] = [
        ("ID", "id"),
        ("MODEL", lambda row: f"{row['model']}@{row['version']}"),
        ("STATE", "state"),
        ("WAVE", lambda row: f"{row['wave']}/{row['waves']}"),
        ("DEVICES", lambda row: f"{row['committed']}/{row['devices']}"),
        ("BY", "created_by"),
        ("STARTED", lambda row: str(row["created_at"])[:16].replace("T", " ")),
        ("REASON", "reason"),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No rollouts. Next: flotilla rollout start NAME@VERSION")


@command(rollout, "show", example="flotilla rollout show ro-7f3k\nflotilla rollout show ro-7f3k --why")
@click.argument("rollout_id", metavar="ID")
@click.option("--all", "every", is_flag=True, help="List every device.")
@click.option("--why", is_flag=True, help="What the gate said and on which numbers, newest first.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Verdicts, with --why.")
def show(shell: Shell, rollout_id: str, every: bool, why: bool, limit: int) -> None:
    """Show waves, devices, gates and what happened."""
    if why:
        rows = shell.api.pages(_path(rollout_id, "verdicts"), limit=limit)
        shell.emit({"items": rows}, lambda: verdict_words.page(rows))
        return
    found = shell.api.get(_path(rollout_id))
    shell.emit(found, lambda: words.page(found, every=every))


@command(rollout, "watch", example="flotilla rollout watch ro-7f3k\nflotilla rollout watch ro-7f3k --jsonl")
@click.argument("rollout_id", metavar="ID")
@click.option("--all", "every", is_flag=True, help="List every device.")
def watch(shell: Shell, rollout_id: str, every: bool) -> None:
    """Follow a rollout to its end: a live page on a terminal, one line for each change elsewhere.

    Ends with 0 (completed), 8 (completed, some devices failed) or 1 (anything else).
    """
    _watch(shell, rollout_id, every=every)


@command(rollout, "wait", example="flotilla rollout wait ro-7f3k --timeout 30m")
@click.argument("rollout_id", metavar="ID")
@click.option("--timeout", help="Give up waiting after this long (exit 7); the rollout goes on.")
def wait(shell: Shell, rollout_id: str, timeout: str | None) -> None:
    """Wait quietly until a rollout is over.

    Ends with 0 (completed), 8 (completed, some devices failed), 7 (out of time) or 1 (anything else).
    """
    until = time.monotonic() + duration(timeout).total_seconds() if timeout else None
    found: Mapping[str, Any] = {}
    for found in _states(shell, rollout_id):
        if until is not None and time.monotonic() >= until and found["state"] not in OVER:
            raise CliError(
                "E_WAIT", f"{rollout_id} is still {found['state']}", "", f"flotilla rollout watch {rollout_id}",
                Exit.TIMED_OUT,
            )  # fmt: skip
    shell.emit(found, words.ended(found))
    shell.exit(exit_code(found))


@command(rollout, "pause", example="flotilla rollout pause ro-7f3k")
@click.argument("rollout_id", metavar="ID")
def pause(shell: Shell, rollout_id: str) -> None:
    """Announce nothing new; devices that were told go on."""
    _steer(shell, rollout_id, "pause")


@command(rollout, "resume", example="flotilla rollout resume ro-7f3k")
@click.argument("rollout_id", metavar="ID")
def resume(shell: Shell, rollout_id: str) -> None:
    """Go on after a pause."""
    _steer(shell, rollout_id, "resume")


@command(rollout, "approve", example="flotilla rollout approve ro-7f3k")
@click.argument("rollout_id", metavar="ID")
@click.option("--reason", default="", help="For the record.")
def approve(shell: Shell, rollout_id: str, reason: str) -> None:
    """Let a rollout begin that waits for approval, or its next wave go."""
    _steer(shell, rollout_id, "approve", {"reason": reason})


@command(rollout, "promote", example="flotilla rollout promote ro-7f3k --yes")
@click.argument("rollout_id", metavar="ID")
@click.option("--plan", "only_plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def promote(shell: Shell, rollout_id: str, only_plan: bool, yes: bool) -> None:
    """Waive the rest of the bake of this wave, or the shadow that devices are in. Gates still hold."""
    if only_plan or not yes:
        found = shell.api.get(_path(rollout_id))
        text = words.promotion(found)
        if only_plan:
            shell.emit({"id": rollout_id, "plan": text}, text)
            return
        shell.confirm(f"{text} Continue?", yes=yes)
    _steer(shell, rollout_id, "promote")


@command(rollout, "abort", example='flotilla rollout abort ro-7f3k --rollback --reason "false alarms at dusk" --yes')
@click.argument("rollout_id", metavar="ID")
@click.option("--rollback/--keep", "back", default=None, help="Go back, or keep what devices have. [as it was started]")
@click.option("--effects", help=f"Exactly these, with commas: {EFFECTS}.")
@click.option("--reason", default="", help="For the record.")
@click.option("--plan", "only_plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def abort(
    shell: Shell, rollout_id: str, back: bool | None, effects: str | None, reason: str, only_plan: bool, yes: bool
) -> None:
    """Stop a rollout. Says first what happens to each device."""
    if back is not None and effects is not None:
        raise CliError("E_USAGE", "--effects and --rollback or --keep exclude each other", "", "give one", Exit.USAGE)
    chosen = ALL_EFFECTS if back else ["stop-new"] if back is not None else _effects(effects)
    _stop(shell, rollout_id, "abort", chosen, reason, only_plan, yes)


@command(rollout, "rollback", example="flotilla rollout rollback ro-7f3k --yes")
@click.argument("rollout_id", metavar="ID")
@click.option("--reason", default="", help="For the record.")
@click.option("--plan", "only_plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(shell: Shell, rollout_id: str, reason: str, only_plan: bool, yes: bool) -> None:
    """Send every device of a rollout back to what it served before, also after it completed."""
    _stop(shell, rollout_id, "rollback", ALL_EFFECTS, reason, only_plan, yes)


def exit_code(found: Mapping[str, Any]) -> Exit:
    """How `watch` and `wait` end."""
    if found["state"] != "completed":
        return Exit.FAILED
    return Exit.SOME_FAILED if found["counts"]["failed"] else Exit.DONE


def _stop(
    shell: Shell, rollout_id: str, verb: str, effects: list[str] | None, reason: str, only_plan: bool, yes: bool
) -> None:
    if only_plan or not yes:
        found = shell.api.get(_path(rollout_id))
        text = words.stopping(found, effects=found["on_failure"] if effects is None else effects)
        if only_plan:
            shell.emit({"id": rollout_id, "plan": text}, text)
            return
        shell.confirm(f"{text} Continue?", yes=yes)
    more = {"effects": effects} if verb == "abort" and effects is not None else {}
    _steer(shell, rollout_id, verb, {"reason": reason, **more})


def _effects(text: str | None) -> list[str] | None:
    if text is None:
        return None
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found or (unknown := [part for part in found if part not in ALL_EFFECTS]):
        wrong = unknown[0] if found else text
        raise CliError("E_USAGE", f"{wrong!r} is not an effect of a stop", "", f"use {EFFECTS}", Exit.USAGE)
    return found


def _steer(shell: Shell, rollout_id: str, verb: str, body: Mapping[str, Any] | None = None) -> None:
    found = shell.api.post(_path(rollout_id, verb), json=dict(body or {}))
    shell.emit(found, f"{rollout_id} is {found['state']}." + (f" {found['reason']}" if found["reason"] else ""))
    if found["state"] not in OVER:
        shell.say(f"Next: flotilla rollout watch {rollout_id}")


def _states(shell: Shell, rollout_id: str) -> Follow:
    """The rollout again and again, until it is over."""
    while True:
        found = shell.api.get(_path(rollout_id))
        yield found
        if found["state"] in OVER:
            return
        time.sleep(POLL_SECONDS)


def _watch(shell: Shell, rollout_id: str, *, every: bool) -> None:
    if shell.tty:
        from fleet.cli import rollout_screen  # rich is for terminals only

        link = f"{shell.session.url}/rollouts/{rollout_id}"
        found = rollout_screen.follow(_states(shell, rollout_id), link=link, every=every)
    else:
        found = _lines(shell, _states(shell, rollout_id))
    if not shell.as_json:
        shell.say(words.ended(found))
    shell.exit(exit_code(found))


def _lines(shell: Shell, states: Follow) -> Mapping[str, Any]:
    before: Mapping[str, Any] = {}
    for found in states:
        for change in words.changes(before, found):
            shell.line(change, words.change(change))
        before = found
    return before


def _body(**asked: Any) -> dict[str, Any]:
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
        "on_failure": _effects(asked["on_failure"]),
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
