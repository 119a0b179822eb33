"""Withdraw a release: nothing brings it to a device from now on. What that stops and whom it leaves, told beforehand.

    survey -> withdraw: state, rollouts stopped, orders to devices that are away replaced -> later perhaps: restore

One transaction; the caller announces to the devices that were given another order.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from fleet.devices import assigning
from fleet.rollouts import changing, engine, standing
from fleet.rollouts.errors import ReleaseNotFoundError
from fleet.rollouts.states import ALL_BACK, Effect, Evidence, Rollout, State
from fleet.schedules.states import LIVE, from_json
from fleet.schedules.states import State as Waiting
from fleet.store import events, releases, schedules, served
from shared.errors import RefusedError

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.director import Director
    from fleet.store.tables import Device, Release

#: Devices on their way to the release are called back; those that have it keep it.
HALT: Final = (Effect.STOP_NEW, Effect.CANCEL_QUEUED, Effect.INTERRUPT)
_UNDER_WAY: Final = tuple(
    str(state) for state in (State.AWAITING_APPROVAL, State.RUNNING, State.PAUSED, State.ABORTING)
)
_OVER: Final = (str(State.COMPLETED), str(State.ABORTED))
#: Schedules that will ask for a release some day.
_LATER: Final = tuple(str(state) for state in (*LIVE, Waiting.PAUSED) if state is not Waiting.RUNNING)


class RestoreError(RefusedError):
    """The release cannot be given out again."""

    code = "E_RESTORE"
    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class Server:
    """A device that serves the release."""

    device: str
    back_to: str | None  # the good version in its other slot
    by: str | None  # the rollout that goes back with `rollback`


@dataclass(frozen=True, slots=True)
class Survey:
    """What a withdrawal does and leaves."""

    model: str
    version: str
    stops: tuple[str, ...]  # rollouts under way
    reverses: tuple[str, ...]  # rollouts that go back when that is asked for
    serving: tuple[Server, ...]
    told: tuple[str, ...]  # devices that were away when they were told, and get another order now
    aliases: tuple[str, ...]  # stand for it until somebody moves them
    schedules: tuple[str, ...]  # are refused when they are due


async def survey(tx: AsyncSession, model: str, version: str) -> Survey:
    """What would happen now; nothing is changed.

    Raises:
        ReleaseNotFoundError: it was never published.
    """
    await _release(tx, model, version)
    running = await served.rollouts_to(tx, model, version, _UNDER_WAY)
    devices = await served.serving(tx, model, version)
    brought = await _brought(tx, model, version, {one.id for one in devices})
    names = await served.aliases_for(tx, model, version)
    later = [from_json(row.body) for row in await schedules.in_states(tx, _LATER, model=model)]
    return Survey(
        model=model,
        version=version,
        stops=tuple(row.id for row in running),
        reverses=tuple(sorted({*brought.values(), *(row.id for row in running)})),
        serving=tuple(Server(one.id, _back_to(one, model), brought.get(one.id)) for one in devices),
        told=tuple(one.id for one in await served.still_told(tx, model, version)),
        aliases=tuple(names),
        schedules=tuple(one.id for one in later if one.version in (version, *names)),
    )


async def withdraw(
    tx: AsyncSession,
    director: Director,
    found: Survey,
    *,
    reason: str,
    rollback: bool,
    by: str,
    now: datetime,
) -> tuple[str, ...]:
    """Do what `found` says; the devices that got another order. A second call stops what began meanwhile, if anything.

    With `rollback` the rollouts that brought it to devices that serve it go back, as by `flotilla rollout rollback`.
    """
    release = await _release(tx, found.model, found.version)
    if release.withdrawn_at is None:
        release.withdrawn_at, release.withdrawn_by = now, by[:128]
        release.state = standing.WITHDRAWN if release.state == standing.RELEASED else release.state
        what = f"{found.model}@{found.version} withdrawn by {by}: {reason}"
        await events.add(tx, kind="release", level="warn", subject=what.split()[0], text=what, now=now)
    release.withdrawn_reason = reason
    await tx.flush()
    why = f"{found.version} was withdrawn by {by}: {reason}"
    for rollout in found.reverses if rollback else found.stops:
        await changing.change(tx, rollout, _stopping(why, back=rollback), now)
    return await _called_off(tx, director, found, now)


async def restore(tx: AsyncSession, model: str, version: str, *, reason: str, by: str, now: datetime) -> Release:
    """It may be given to devices again. What was stopped stays stopped. A second call changes nothing.

    Raises:
        ReleaseNotFoundError: it was never published.
        RestoreError: its chunks are gone.
    """
    release = await _release(tx, model, version)
    if release.withdrawn_at is None:
        return release
    if release.state == standing.RETIRED:
        raise RestoreError(
            f"{model}@{version} was retired meanwhile: its chunks are deleted",
            remedy="publish it again under a new number: flotilla model publish",
        )
    release.state = standing.RELEASED
    release.withdrawn_at = release.withdrawn_by = release.withdrawn_reason = None
    text = f"{model}@{version} may be given out again ({by}: {reason})"
    await events.add(tx, kind="release", level="info", subject=f"{model}@{version}", text=text, now=now)
    return release


def _stopping(why: str, *, back: bool) -> changing.Change:
    effects = ALL_BACK if back else HALT

    def decide(rollout: Rollout, evidence: Evidence, now: datetime) -> engine.Step:
        if rollout.state is State.ABORTING and not back:  # it ends already: now also for who is on the way
            wider = tuple(effect for effect in Effect if effect in (*effects, *rollout.ending))
            return engine.Step(replace(rollout, ending=wider, reason=why))
        return engine.abort(rollout, evidence, now, reason=why, effects=effects)

    return decide


async def _called_off(tx: AsyncSession, director: Director, found: Survey, now: datetime) -> tuple[str, ...]:
    """Devices that were away get the order to serve what they serve. Where that is nothing, or withdrawn itself, the
    release is called off."""
    done, release = [], await _release(tx, found.model, found.version)
    for device in await served.still_told(tx, found.model, found.version):
        version = device.serving.get(found.model)
        other = await releases.find(tx, found.model, version) if version is not None else None
        if other is not None and other.withdrawn_at is None:
            await assigning.assign(tx, director, device, other, now=now)
        else:
            off = assigning.Order(activate="never")
            await assigning.assign(tx, director, device, release, off, now=now)
        done.append(device.id)
    return tuple(done)


async def _brought(tx: AsyncSession, model: str, version: str, devices: set[str]) -> dict[str, str]:
    """Device -> the newest rollout, over or not, that brought the release there."""
    found: dict[str, str] = {}
    for row in await served.rollouts_to(tx, model, version, (*_UNDER_WAY, *_OVER)):
        for device in devices.intersection(await served.brought_by(tx, row.id)):
            found.setdefault(device, row.id)
    return found


async def _release(tx: AsyncSession, model: str, version: str) -> Release:
    release = await releases.find(tx, model, version)
    if release is None:
        raise ReleaseNotFoundError(f"{model}@{version} was never published")
    return release


def _back_to(device: Device, model: str) -> str | None:
    try:
        return assigning.other_good_slot(device.slots, device.serving, model)[1]
    except assigning.NoOtherSlotError:
        return None
