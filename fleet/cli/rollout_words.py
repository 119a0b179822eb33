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
    "shadowing": 3,
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
    each, total = size(found["bytes_each"]), size(found["bytes_total"])
    if found.get("by_delta"):
        each = f"{each} in full ({found['by_delta']} by delta)"
    else:
        each = f"{each} each"
    reach = f"{found['reachable']} reachable{offline}{already}"
    lines = [
        f"Plan  {devices(found['devices'])}: {reach};  {each}, {total} in all",
        *(f"      {_wave(wave)}" for wave in found["waves"]),
        f"      bake {span(found['bake_seconds'])}{_pace(found)}",
        *(f"      to {site or 'no site'}: {devices(it['devices'])}, {size(it['bytes'])}"
          for site, it in found["sites"].items() if len(found["sites"]) > 1),
        *([f"      {shadowing(found['shadow'])}"] if found.get("shadow") else []),
        *_when(found),
        *_excluded(found),
        *([f"      waits for approval: {found['approval']}"] if found["approval"] else []),
        f"      stop if {_stops(found)}",
        *(f"      {text}" for text in _afterwards(found)),
    ]  # fmt: skip
    return "\n".join(lines)


def _wave(wave: Document) -> str:
    classes = ", ".join(f"{number} {name or 'unknown'}" for name, number in wave["hardware"].items())
    return f"{wave['name']}: {wave['total']} ({classes}; {size(wave['bytes'])})"


def _pace(found: Document) -> str:
    places = "all at once" if found["max_in_flight"] is None else f"{found['max_in_flight']} at work at a time"
    ramp, budget = found["ramp"], found["site_budget"]
    rate = (
        f", {ramp['per_minute']:g} a minute, x{ramp['factor']:g} after each {ramp['every']} successes" if ramp else ""
    )
    flying = f", {size(budget['in_flight_bytes'])} in flight to a site" if budget["in_flight_bytes"] else ""
    hourly = f", {size(budget['hourly_bytes'])} an hour to a site" if budget["hourly_bytes"] else ""
    staged = f", one switch when {found['stage_ratio']:.0%} have it staged" if found["stage_ratio"] else ""
    return f";  {places}{rate}{flying}{hourly}{staged}"


def _excluded(found: Document) -> Iterator[str]:
    proofs = {(it["hardware"], it["detail"], it["rollout"]): 0 for it in found["excluded"]}
    for it in found["excluded"]:
        proofs[(it["hardware"], it["detail"], it["rollout"])] += 1
    for (hardware, detail, rollout), number in proofs.items():
        where = f"{devices(number)} of class {hardware}"
        yield f"      not to {where}, where it is proven bad ({rollout}: {detail}); --force"


def _stops(found: Document) -> str:
    limits = found["limits"]
    criteria = ", ".join(
        f"more than {it['ratio']:.0%} {_ENDS[it['kind']]}" if it["ratio"] else f"a device {_END[it['kind']]}"
        for it in limits["criteria"]
    )
    return (
        f"{criteria}, p95 > {limits['max_latency_ms']:g} ms, errors > {limits['max_error_ratio'] * 100:g} %,"
        f" PSI > {limits['max_psi']:.2f}, or silence for {span(found['timeout_seconds'])}"
    )


_END: Final[Mapping[str, str]] = {
    "rolled-back": "takes it back",
    "refused": "refuses it",
    "failed": "fails",
    "timed-out": "does not finish in time",
    "cancelled": "is cancelled",
    "any": "ends badly",
}
_ENDS: Final[Mapping[str, str]] = {
    "rolled-back": "take it back",
    "refused": "refuse it",
    "failed": "fail",
    "timed-out": "do not finish in time",
    "cancelled": "are cancelled",
    "any": "end badly",
}


def _afterwards(found: Document) -> Iterator[str]:
    yield from (f"at a stop, {text}" for text in found["stop_does"])
    if "roll-back" in found["on_failure"]:
        if found["previous"]:
            yield f"the version before: {', '.join(found['previous'])}"
        if found["without_previous"]:
            yield f"{devices(found['without_previous'])} without a version to go back to: who serves it then, keeps it"


def _when(found: Document) -> Iterator[str]:
    if window := found.get("window"):
        yield f"      devices fetch and test at once, and swap only from {window}"
    if before := found.get("goes_before"):
        others = ", ".join(f"{other} on {devices(number)}" for other, number in before.items())
        yield f"      goes before {others}, as its priority is {found['priority']}"


def shadowing(terms: Document) -> str:
    """What devices compare before they swap."""
    share, samples, agreement = terms["share"], terms["min_samples"], terms["min_agreement"]
    ends = "then waits for promote" if terms["stay"] else f"at most {span(terms['seconds'])}"
    return (
        f"first in the shadow: {share:.0%} of the requests, {samples} samples, {agreement:.1%} must agree;"
        f" {ends}; too few: {terms['when_few']}"
    )


def stopping(found: Document, *, effects: Sequence[str]) -> str:
    """What an abort would do."""
    touched = [it for it in found["deployments"] if it["touched"]]
    moving = [it for it in touched if it["state"] not in BAD and it["state"] != "committed"]
    queued = [it for it in moving if it["state"] in ("queued", "announced")]
    begun = [it for it in moving if it not in queued]
    have = [it for it in touched if it["state"] == "committed"]
    versions = ", ".join(found["previous"]) or "nothing, for there was none before"
    rest = f"{len(found['deployments']) - len(touched)} untouched."
    goes = f"go back to {versions}" if "roll-back" in effects else f"keep {found['version']}"
    ends = "stop where they are" if "interrupt" in effects else "finish what they began"
    waits = "are called back" if "cancel-queued" in effects else "go on"
    told = [f"{len(queued)} told and not begun {waits}"] if queued else []
    return ", ".join((f"{devices(len(have))} {goes}", *told, f"{len(begun)} {ends}", rest))


def promotion(found: Document) -> str:
    """What a promotion would do."""
    looking = sum(it["state"] == "shadowing" for it in found["deployments"])
    if looking:
        verb = "swaps" if looking == 1 else "swap"
        return f"{devices(looking)} {verb} without more comparison; later ones compare nothing."
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
    if found.get("window"):
        lines.append(f"  devices swap {found['window']}")
    lines += [f"  {text}" for text in traffic(found)]
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
        *(f"{MARKS[it['result']]}  {it['name']:<23} {it['value_text']:>10}  {it['rule']}" for it in found["gates"]),
    ]
    lines += ["", *(f"   {str(it['at'])[11:19]}  {it['text']}" for it in found["timeline"][:_SHOWN])]
    return "\n".join(lines)


def traffic(found: Document) -> Iterator[str]:
    """`fetched 40 MB of 120 MB planned: manager 12 MB, peer 28 MB`, once there is something to fetch."""
    counted = found.get("bytes") or {}
    if counted.get("planned"):
        sources = ", ".join(f"{name} {size(count)}" for name, count in counted["by_source"].items())
        part = f"fetched {size(counted['fetched'])} of {size(counted['planned'])} planned"
        yield f"{part}: {sources}" if sources else part


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
    if device.get("waits_for"):
        text += f" (waits for {device['waits_for']})"
    why = ": ".join(filter(None, (device["reason"], device["detail"])))
    compared = f"({device['shadow']})" if device.get("shadow") and text == "shadowing" else ""
    return " ".join(filter(None, (text, compared, why)))


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
    yield from _steps(before, after)
    if before.get("state") != after["state"]:
        at, state = after["since"], after["state"]
        yield {"at": at, "rollout": after["id"], "from": before.get("state"), "to": state, "reason": after["reason"]}


def _steps(before: Document, after: Document) -> Iterator[dict[str, Any]]:
    """Waves that went on, gates that failed."""
    waves = {it["index"]: it["state"] for it in before.get("waves", ())}
    for it in after["waves"]:
        if waves.get(it["index"], it["state"]) != it["state"]:
            yield {
                "at": after["updated_at"], "rollout": after["id"], "wave": it["index"], "name": it["name"],
                "from": waves[it["index"]], "to": it["state"], "reason": None, "detail": it["sub"],
            }  # fmt: skip
    gates = {it["name"]: it["result"] for it in before.get("gates", ())}
    for it in after["gates"]:
        if it["result"] == "fail" and gates.get(it["name"], "fail") != "fail":
            yield {
                "at": after["updated_at"], "rollout": after["id"], "gate": it["name"], "from": gates[it["name"]],
                "to": "fail", "reason": None, "detail": it["detail"],
            }  # fmt: skip


def change(found: Document) -> str:
    """One change as a line."""
    moment = str(found["at"])[11:19] + "Z"
    why = ": ".join(filter(None, (found["reason"], found.get("detail"))))
    if "gate" in found:
        what = f"gate {found['gate']}"
    else:
        named = found.get("device") or found.get("name")
        what = f"wave={found['wave']} {named}" if named else str(found["rollout"])
    move = f"{found['from']}→{found['to']}" if found["from"] else str(found["to"])
    return f"{moment} {what} {move} {why}".rstrip()
