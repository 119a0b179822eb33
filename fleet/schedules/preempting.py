"""A rollout goes before others of lower priority: it takes devices that were not told, and says so on both.

Of the same model, such a device's way in the other rollout ends (its version would be the older decision); of
another model, the other rollout tells it later. A device that was told is never taken: the newcomer waits for it.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import changing, engine
from fleet.rollouts.states import QUEUED, Evidence, Rollout, State
from fleet.schedules.precedence import E_PREEMPTED
from fleet.store import events
from fleet.store import rollouts as store


async def go_first(tx: AsyncSession, newcomer: Rollout, rivals: Mapping[str, Sequence[str]], now: datetime) -> None:
    """Take what may be taken of `rivals` (rollout -> devices of the newcomer), in the caller's transaction."""
    for rival, devices in sorted(rivals.items()):
        row = await store.get(tx, rival)
        if row is None:
            continue
        if row.model == newcomer.model:
            await changing.change(tx, rival, _taking(newcomer, set(devices)), now)
        else:
            text = f"{newcomer.id} ({newcomer.priority}) goes first on devices that were not told: {_some(devices)}"
            await events.add(tx, kind="rollout", level="warn", subject=rival, rollout_id=rival, text=text, now=now)
        text = f"goes before {rival} on {_some(devices)}; what {rival} has under way ends first"
        await events.add(
            tx, kind="rollout", level="info", subject=newcomer.id, rollout_id=newcomer.id, text=text, now=now
        )


def _taking(newcomer: Rollout, devices: Collection[str]) -> changing.Change:
    def decide(rollout: Rollout, evidence: Evidence, _now: datetime) -> engine.Step:
        if rollout.state not in (State.RUNNING, State.PAUSED):
            return engine.Step(rollout)
        detail = f"{newcomer.id} ({newcomer.version}, {newcomer.priority}) went first"
        taken = tuple(
            engine.Close(member.device, "cancelled", E_PREEMPTED, detail)
            for member in evidence.members
            if member.device in devices and not member.touched and member.state == QUEUED
        )
        names = _some([close.device for close in taken])
        notes = (engine.Note("warn", f"{newcomer.id} ({newcomer.priority}) took {names}"),) if taken else ()
        return engine.Step(rollout, taken, notes)

    return decide


def _some(devices: Sequence[str]) -> str:
    return ", ".join(devices[:3]) + (f" and {len(devices) - 3} more" if len(devices) > 3 else "")
