"""What a plan tells before anything happens: who, how many bytes, what stops it, what a stop does.

I/O: none.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from fleet.rollouts.plan import Meant, Plan
from fleet.rollouts.states import Effect, Rollout

#: At most so many device ids of one wave are listed.
LISTED: Final = 20

_DOES: Final[Mapping[Effect, str]] = {
    Effect.STOP_NEW: "nobody else is told",
    Effect.CANCEL_QUEUED: "devices that were told and have not begun are called back",
    Effect.INTERRUPT: "devices under way are called back",
    Effect.ROLL_BACK: "devices that have it go back to the version before, without download where the other slot"
    " still holds that",
}
_STAYS: Final[Mapping[Effect, str]] = {
    Effect.CANCEL_QUEUED: "devices that were told and have not begun go on",
    Effect.INTERRUPT: "devices under way finish",
    Effect.ROLL_BACK: "devices that have it keep it",
}


def document(made: Plan) -> dict[str, Any]:
    """The JSON form of a plan."""
    rollout, offline = made.rollout, set(made.offline)
    return {
        "model": rollout.model,
        "version": rollout.version,
        "strategy": rollout.strategy,
        "priority": rollout.priority,
        "shadow": None if rollout.shadow is None else rollout.shadow.model_dump(mode="json"),
        "window": None if rollout.window is None else rollout.window.text(),
        "goes_before": {other: len(devices) for other, devices in made.rivals.items()},
        "devices": len(made.order),
        "reachable": len(made.order) - len(offline),
        "offline": list(made.offline),
        "already": list(made.already),
        "excluded": [
            {"device": device, "hardware": pair.hardware, "reason": pair.reason, "detail": pair.detail,
             "rollout": pair.rollout_id}
            for device, pair in sorted(made.excluded.items())
        ],
        "previous": sorted({version for version in made.previous.values() if version}),
        "without_previous": sum(version is None for version in made.previous.values()),
        "bytes_each": made.bytes_each,
        "bytes_total": sum(made.bytes_by.values()),
        "by_delta": sum(size < made.bytes_each for size in made.bytes_by.values()),
        "waves": [_wave(made, index) for index in range(len(rollout.waves))],
        "hardware": _counted(it.hardware for it in made.members),
        "sites": {
            site: {"devices": number, "bytes": _bytes(made, (it for it in made.members if it.site == site))}
            for site, number in _counted(it.site for it in made.members).items()
        },
        "bake_seconds": rollout.bake_seconds,
        "timeout_seconds": rollout.timeout_seconds,
        "auto_rollback": rollout.auto_rollback,
        "on_failure": list(rollout.policy),
        "stop_does": stop_does(rollout.policy),
        "approval": _approval(rollout),
        "max_in_flight": None if rollout.strategy == "all-at-once" else rollout.max_in_flight,
        "ramp": None if rollout.ramp is None else asdict(rollout.ramp),
        "site_budget": asdict(rollout.site_budget),
        "stage_ratio": rollout.stage_ratio if rollout.strategy == "blue-green" else None,
        "force": rollout.force,
        "limits": asdict(rollout.limits),
    }  # fmt: skip


def stop_does(effects: Iterable[Effect]) -> list[str]:
    """What happens to the devices at a stop, in words, for each of the four effects."""
    chosen = {*effects, Effect.STOP_NEW}
    return [_DOES[effect] if effect in chosen else _STAYS[effect] for effect in Effect]


def _wave(made: Plan, index: int) -> dict[str, Any]:
    wave = made.rollout.waves[index]
    mine: list[Meant] = [it for it in made.members if it.wave == index]
    return {
        "index": index + 1,
        "name": wave.name,
        "target": wave.target,
        "total": wave.size,
        "bytes": _bytes(made, mine),
        "hardware": _counted(it.hardware for it in mine),
        "sites": _counted(it.site for it in mine),
        "ids": [it.device for it in mine[:LISTED]],
    }


def _bytes(made: Plan, members: Iterable[Meant]) -> int:
    """On the wire: less than the whole release where a delta leads there."""
    return sum(made.bytes_by.get(it.device, made.bytes_each) for it in members)


def _approval(rollout: Rollout) -> str | None:
    if rollout.needs_approval:
        return "another person, before it begins" + (", and before each wave" if rollout.manual else "")
    return "a person, before each wave after the first" if rollout.manual else None


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
