"""Who still needs which release: slots, aliases, rollouts, schedules, baselines.

I/O: none.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.schedules.states import TERMINAL, State, from_json
from fleet.store import devices, rollouts, schedules
from fleet.store.tables import BaselineChoice, Deployment

Needs = Mapping[tuple[str, str], tuple[str, ...]]


async def needs(tx: AsyncSession) -> Needs:
    """(model, version) -> who needs it, in words, at this moment."""
    found: dict[tuple[str, str], dict[str, None]] = {}

    def add(model: Any, version: Any, who: str) -> None:
        if model and version:
            found.setdefault((str(model), str(version)), {})[who] = None

    for device in await devices.active(tx):
        for model, version in device.serving.items():
            add(model, version, f"device {device.id}")
        for slot in device.slots:
            add(slot.get("model"), slot.get("version"), f"a slot of device {device.id}")
    for alias in await schedules.aliases(tx):
        add(alias.model, alias.version, f"alias {alias.name}")
    for row in await rollouts.active(tx):
        add(row.model, row.version, f"rollout {row.id}")
        before = select(Deployment.previous).where(Deployment.rollout_id == row.id).distinct()
        for previous in await tx.scalars(before):
            add(row.model, previous, f"rollout {row.id}, to go back to")
    for action in await rollouts.owed(tx):
        add(action.model, action.version, f"rollout {action.rollout_id}")
    for later in await schedules.in_states(tx, [state.value for state in State if state not in TERMINAL]):
        schedule = from_json(later.body)
        add(schedule.model, schedule.version, f"schedule {schedule.id}")
    for choice in await tx.scalars(select(BaselineChoice).where(BaselineChoice.pinned)):
        add(choice.model, choice.version, f"the pinned baseline of {choice.scope}")
    return {release: tuple(who) for release, who in found.items()}
