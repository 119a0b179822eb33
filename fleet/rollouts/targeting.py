"""Which devices a target means now, and who of them joins a rollout that is under way.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import saved, waves
from fleet.rollouts.errors import NoDevicesError
from fleet.rollouts.states import QUEUED, Rollout, State, Target, Wave
from fleet.schedules import channels
from fleet.store import bad_pairs, events, tables
from fleet.store import devices as device_store
from fleet.store import rollouts as store

#: States in which a rollout takes in who comes late.
_OPEN = frozenset({State.AWAITING_APPROVAL, State.RUNNING, State.PAUSED})


async def devices(tx: AsyncSession, target: Target, model: str) -> Sequence[tables.Device]:
    """The active devices that are meant to get `model`.

    Raises:
        NoDevicesError: an id that no active device has.
        FilterError: the filter cannot be read.
    """
    found = await device_store.active(tx, target.filter)
    if target.ids is not None:
        wanted = set(target.ids)
        if missing := wanted - {device.id for device in await device_store.active(tx)}:
            raise NoDevicesError(f"no active device is called {', '.join(sorted(missing)[:5])}")
        found = [device for device in found if device.id in wanted]
    return [device for device in found if _fits(target, device, model)]


def _fits(target: Target, device: tables.Device, model: str) -> bool:
    labels = all(device.labels.get(key) == value for key, value in target.labels.items())
    follows = target.channel is None or channels.follows(device.labels, device.serving, model, target.channel)
    return labels and follows and target.site in (None, device.site)


async def newcomers(tx: AsyncSession, rollout_id: str) -> tuple[Rollout | None, Sequence[tables.Device]]:
    """The rollout, and the devices that came into its target since it began."""
    row = await store.get(tx, rollout_id)
    rollout = saved.from_json(row.body) if row is not None else None
    target = None if rollout is None or rollout.state not in _OPEN else rollout.target
    if rollout is None or target is None or target.ids is not None:
        return rollout, ()
    found = await device_store.active(tx, target.filter, outside=rollout_id)
    new = [it for it in found if _fits(target, it, rollout.model) and it.serving.get(rollout.model) != rollout.version]
    if not new:
        return rollout, ()
    busy = await store.busy(tx, [it.id for it in new])
    bad = {} if rollout.force else await bad_pairs.of_release(tx, rollout.model, rollout.version)
    return rollout, [it for it in new if it.id not in busy and it.hardware not in bad]


async def join(tx: AsyncSession, rollout_id: str, now: datetime) -> tuple[str, ...]:
    """Take devices into the rollout that came into its target since it began; their ids. They obey the same ramp:
    each waits in a wave that is not out yet, or in the last one."""
    rollout, new = await newcomers(tx, rollout_id)
    if rollout is None or not new:
        return ()
    for device in new:
        rollout, wave = joined(rollout, device.id)
        row = tables.Deployment(rollout_id=rollout_id, device_id=device.id, wave=wave, state=QUEUED, since=now)
        row.previous = device.serving.get(rollout.model)
        tx.add(row)
    changed = await tx.get_one(tables.Rollout, rollout_id)
    changed.body, changed.updated_at = saved.to_json(rollout), now
    names = ", ".join(it.id for it in new[:3]) + (", ..." if len(new) > 3 else "")
    text = f"{len(new)} devices came into the target and join: {names}"
    await events.add(tx, kind="rollout", level="info", subject=rollout_id, rollout_id=rollout_id, text=text, now=now)
    return tuple(it.id for it in new)


def joined(rollout: Rollout, device: str) -> tuple[Rollout, int]:
    """The rollout with one device more, and the index of its wave."""
    wave = waves.late(rollout.id, rollout.waves, rollout.wave, device)
    grown = [Wave(it.name, it.target, it.size + 1) if index == wave else it for index, it in enumerate(rollout.waves)]
    return replace(rollout, waves=tuple(grown)), wave
