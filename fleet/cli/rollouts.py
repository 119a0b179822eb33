"""`flotilla rollout`: plan, start, follow, and steer.

I/O: clock.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from fleet.cli import rollout_request as request
from fleet.cli import rollout_words as words
from fleet.cli import verdict_words
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import duration

POLL_SECONDS: Final = 0.5
OVER: Final = frozenset({"completed", "aborted", "rolled-back", "failed"})

Follow = Iterator[Mapping[str, Any]]


@group
def rollout() -> None:
    """Bring a version to devices, wave by wave."""


def _path(rollout_id: str, verb: str = "") -> str:
    return f"/rollouts/{quote(rollout_id, safe='')}" + (f"/{verb}" if verb else "")


@command(rollout, "plan", example="flotilla rollout plan digits@1.1.0 --waves 1,25%,100%")
@request.options
def plan(shell: Shell, **asked: Any) -> None:
    """Show what a rollout would do. Nothing is changed."""
    found = shell.api.post("/rollouts", json=request.body(**asked), params={"dry_run": True})
    shell.emit(found, lambda: words.plan(found))


@command(
    rollout,
    "start",
    example="flotilla rollout start digits@1.1.0 --waves 1,25%,100% --bake 30m\n"
    "flotilla rollout start digits@1.1.0 --target site:gate --yes --watch\n"
    "flotilla rollout start digits@1.1.0 --shadow share=10%,agreement=97% --min-agreement 95",
)
@request.options
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--watch", "follow", is_flag=True, help="Follow it to its end.")
def start(shell: Shell, only_plan: bool, yes: bool, follow: bool, **asked: Any) -> None:
    """Start a rollout, after showing what it will do."""
    body = request.body(**asked)
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
@click.option("--effects", help=f"Exactly these, with commas: {request.EFFECTS}.")
@click.option("--reason", default="", help="For the record.")
@click.option("--plan", "only_plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def abort(
    shell: Shell, rollout_id: str, back: bool | None, effects: str | None, reason: str, only_plan: bool, yes: bool
) -> None:
    """Stop a rollout. Says first what happens to each device."""
    if back is not None and effects is not None:
        raise CliError("E_USAGE", "--effects and --rollback or --keep exclude each other", "", "give one", Exit.USAGE)
    chosen = request.ALL_EFFECTS if back else ["stop-new"] if back is not None else request.effects(effects)
    _stop(shell, rollout_id, "abort", chosen, reason, only_plan, yes)


@command(rollout, "rollback", example="flotilla rollout rollback ro-7f3k --yes")
@click.argument("rollout_id", metavar="ID")
@click.option("--reason", default="", help="For the record.")
@click.option("--plan", "only_plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(shell: Shell, rollout_id: str, reason: str, only_plan: bool, yes: bool) -> None:
    """Send every device of a rollout back to what it served before, also after it completed."""
    _stop(shell, rollout_id, "rollback", request.ALL_EFFECTS, reason, only_plan, yes)


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
