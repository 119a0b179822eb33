"""A rollout in words: its plan, its page, its changes, its end.

I/O: none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fleet.cli.wording import size, span

Document = Mapping[str, Any]

MARKS: Final[Mapping[str, str]] = {
    "done": "✔",
    "running": "◐",
    "baking": "◐",
    "paused": "‖",
    "waiting": "○",
    "failed": "✖",
    "stopped": "–",
    "pass": "✔",
    "wait": "…",
    "fail": "✖",
}
#: How far each state of a device is, of four steps.
STEPS: Final[Mapping[str, int]] = {
    "queued": 0,
    "announced": 0,
    "verified": 1,
    "fetching": 1,
    "assembled": 2,
    "staged": 2,
    "self-tested": 3,
    "probation": 3,
    "committed": 4,
}
BAD: Final = frozenset({"refused", "failed", "rolled-back", "cancelled", "timed-out"})
_SHOWN: Final = 12


def devices(number: int) -> str:
    """`1 device`, `5 devices`."""
    return f"{number} device" if number == 1 else f"{number} devices"


def plan(found: Document) -> str:
    """What a rollout would do, in a few lines."""
    offline = f", {len(found['offline'])} offline get it when they come" if found["offline"] else ""
    already = f", {len(found['already'])} have it already" if found["already"] else ""
    waves = "   ".join(f"{wave['name']}: {wave['total']}" for wave in found["waves"])
    limits = found["limits"]
    back = f"back to {', '.join(found['previous'])}" if found["previous"] else "there is no version to go back to"
    after = f"then devices go {back}" if found["auto_rollback"] and found["previous"] else back
    if not found["auto_rollback"]:
        after = "devices that have it keep it"
    each, total = size(found["bytes_each"]), size(found["bytes_total"])
    if found.get("by_delta"):
        each = f"{each} in full ({found['by_delta']} by delta)"
    else:
        each = f"{each} each"
    reach = f"{found['reachable']} reachable{offline}{already}"
    stop = (
        f"p95 > {limits['max_latency_ms']:g} ms, errors > {limits['max_error_ratio'] * 100:g} %,"
        f" PSI > {limits['max_psi']:.2f}, or silence for {span(found['timeout_seconds'])}"
    )
    return "\n".join(
        (
            f"Plan  {devices(found['devices'])}: {reach};  {each}, {total} in all",
            f"      {waves};  bake {span(found['bake_seconds'])}",
            f"      stop if a device takes it back, {stop};  {after}",
        )
    )


def stopping(found: Document, *, back: bool) -> str:
    """What an abort would do."""
    touched = [it for it in found["deployments"] if it["touched"]]
    moving = [it for it in touched if it["state"] not in BAD and it["state"] != "committed"]
    have = [it for it in touched if it["state"] == "committed"]
    rest = f"{len(found['deployments']) - len(touched)} untouched."
    if not back:
        return f"{devices(len(have))} keep {found['version']}, {len(moving)} finish what they began, {rest}"
    versions = ", ".join(found["previous"]) or "nothing, for there was none before"
    return f"{devices(len(have))} go back to {versions}, {len(moving)} stop where they are, {rest}"


def promotion(found: Document) -> str:
    """What a promotion would do."""
    left = found["bake_left_seconds"]
    waits = f"{span(left)} of watching" if left else "the bake of this wave"
    following = next((wave for wave in found["waves"] if wave["index"] == found["wave"] + 1), None)
    then = f"{following['name']} ({devices(following['total'])}) follows" if following else "the rollout completes"
    return f"This skips {waits}; then {then}."


def head(found: Document) -> str:
    """`digits 1.0.0 → 1.1.0   running   ro-7f3k · by ana · 2/3 devices`."""
    before = f"{', '.join(found['previous'])} → " if found["previous"] else ""
    counts = found["counts"]
    return (
        f"{found['model']} {before}{found['version']}   {found['state']}   {found['id']} · by {found['created_by']}"
        f" · {counts['committed']}/{counts['total']} devices"
    )


def page(found: Document, *, every: bool) -> str:
    """The whole rollout as text."""
    lines = [head(found)]
    if found["reason"]:
        lines.append(f"  {found['reason']}")
    lines.append("")
    lines += [
        f"{MARKS[it['state']]}  {it['name']:<9} {it['target']:>10}  {it['done']}/{it['total']}   {note(it)}"
        for it in found["waves"]
    ]
    chosen, more = chosen_devices(found, every=every, limit=_SHOWN)
    lines += ["", *(f"   {it['device']:<20} {it['site']:<16} {phase(it)}" for it in chosen)]
    if more:
        lines.append(f"   +{more} more (--all to list)")
    lines += [
        "",
        *(f"{MARKS[it['result']]}  {it['name']:<12} {it['value_text']:>10}  {it['rule']}" for it in found["gates"]),
    ]
    lines += ["", *(f"   {str(it['at'])[11:19]}  {it['text']}" for it in found["timeline"][:_SHOWN])]
    return "\n".join(lines)


def note(wave: Document) -> str:
    """What the wave says of itself, without the count that stands beside it."""
    text = str(wave["sub"])
    return text.partition(", ")[2] if " healthy" in text else text


def chosen_devices(found: Document, *, every: bool, limit: int) -> tuple[Sequence[Document], int]:
    """Devices worth a line: those in trouble, then those at work; how many were left out."""
    rank = {"committed": 2, "queued": 3}
    ordered = sorted(
        found["deployments"], key=lambda it: (0 if it["state"] in BAD else rank.get(it["state"], 1), it["wave"])
    )
    shown = ordered if every else ordered[:limit]
    return shown, len(ordered) - len(shown)


def phase(device: Document) -> str:
    """`fetching 93 %`, `refused E_SIGNATURE: ...`."""
    text = str(device["state"])
    if text == "fetching" and device["total_bytes"]:
        text += f" {100 * (device['fetched_bytes'] or 0) // device['total_bytes']} %"
    if text == "queued" and not device["online"]:
        text += " (offline)"
    why = ": ".join(filter(None, (device["reason"], device["detail"])))
    return f"{text} {why}".rstrip()


def ended(found: Document) -> str:
    """The last line."""
    counts = found["counts"]
    done = f"{counts['committed']} of {counts['total']} devices on {found['version']}"
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    why = f": {found['reason']}" if found["reason"] else ""
    return f"{found['id']} {found['state']}{why} ({done}{failed})"


def changes(before: Document, after: Document) -> Iterator[dict[str, Any]]:
    """What differs between two looks, one document each."""
    old = {it["device"]: it["state"] for it in before.get("deployments", ())}
    for it in after["deployments"]:
        was = old.get(it["device"], "queued")
        if was != it["state"]:
            yield {
                "at": it["since"],
                "rollout": after["id"],
                "wave": it["wave"],
                "device": it["device"],
                "from": was,
                "to": it["state"],
                "reason": it["reason"],
                "detail": it["detail"],
            }
    if before.get("state") != after["state"]:
        at, state = after["since"], after["state"]
        yield {"at": at, "rollout": after["id"], "from": before.get("state"), "to": state, "reason": after["reason"]}


def change(found: Document) -> str:
    """One change as a line."""
    moment = str(found["at"])[11:19] + "Z"
    why = ": ".join(filter(None, (found["reason"], found.get("detail"))))
    what = f"wave={found['wave']} {found['device']}" if "device" in found else str(found["rollout"])
    move = f"{found['from']}→{found['to']}" if found["from"] else str(found["to"])
    return f"{moment} {what} {move} {why}".rstrip()
