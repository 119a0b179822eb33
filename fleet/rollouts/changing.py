"""Change one rollout: load, decide, save it with what it owes, all in the caller's transaction.

I/O: none.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.rollouts import engine, reading, saved, verdicts
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.roster import Roster
from fleet.rollouts.states import QUEUED, TERMINAL, Effect, Event, Evidence, Rollout, State, advance
from fleet.store import bad_pairs, events, tables
from fleet.store import rollouts as store
from shared.messages import Phase

Change = Callable[[Rollout, Evidence, datetime], engine.Step]


async def loaded(
    tx: AsyncSession, row: tables.Rollout, now: datetime, roster: Roster | None = None
) -> tuple[Rollout, Evidence]:
    """What the engine needs, from the rows of this transaction."""
    rollout = saved.from_json(row.body)
    return rollout, await reading.evidence(tx, row, now, roster)


async def change(
    tx: AsyncSession,
    rollout_id: str,
    decide: Change,
    now: datetime,
    *,
    alarm: bool = False,
    roster: Roster | None = None,
) -> Rollout:
    """Load, decide, save the rollout with what it owes. The caller's transaction makes it one.

    With `alarm`, a rollout that stops opens an alert; a person who stops one knows it already.

    Raises:
        RolloutNotFoundError: no such rollout.
        RolloutStateError: `decide` refuses.
    """
    row = await store.get(tx, rollout_id)
    if row is None:
        raise RolloutNotFoundError(f"there is no rollout {rollout_id!r}")
    before, evidence = await loaded(tx, row, now, roster)
    step = decide(before, evidence, now)
    if alarm:
        await verdicts.keep(tx, before, step.numbers)
    if step == engine.Step(before):
        return before
    row.body, row.state, row.reason = saved.to_json(step.rollout), step.rollout.state.value, step.rollout.reason
    row.updated_at = now
    for action in step.actions:
        await _owe(tx, step.rollout, action, now)
    for proven in step.condemned:
        await bad_pairs.add(tx, step.rollout, proven, now)
    if step.rollout.state is State.COMPLETED and before.state is not State.COMPLETED:
        stays = {member.hardware for member in evidence.members if member.forward == Phase.COMMITTED}
        await bad_pairs.forgive(tx, step.rollout, stays)
    for note in step.notes:
        await events.add(
            tx, kind="rollout", level=note.level, subject=rollout_id, rollout_id=rollout_id, text=note.text, now=now
        )
    if alarm and step.rollout.reason and _bad_news(before.state, step.rollout.state):
        await _alarm(tx, step.rollout, now)
    return step.rollout


async def _owe(tx: AsyncSession, rollout: Rollout, action: engine.Action, now: datetime) -> None:
    """What `engine.applied` says, done to the row; and the debt."""
    row = await tx.get(tables.Deployment, (rollout.id, action.device))
    if row is None:
        raise RuntimeError(f"{action} without a row")
    debt = tables.OwedAction(rollout_id=rollout.id, device_id=action.device, model=rollout.model, owed_at=now)
    row.since = now
    match action:
        case engine.Announce(stage=stage):
            row.told_at, row.switched_at = now, None if stage else now
            debt.kind, debt.version = "stage" if stage else "announce", rollout.version
            tx.add(debt)
        case engine.Switch():
            row.switched_at = now
            debt.kind, debt.version = "switch", rollout.version
            tx.add(debt)
        case engine.Recall() | engine.CallOff():
            row.outcome, row.outcome_reason, row.outcome_detail = row.state, row.reason, row.detail
            row.state, row.reason, row.detail, row.recalled_at = QUEUED, None, None, now
            debt.kind, debt.version = "call-off", rollout.version
            if isinstance(action, engine.Recall):
                debt.kind, debt.version = "recall", action.version
            tx.add(debt)
        case engine.Close(state=state, reason=reason, detail=detail):
            row.state, row.reason, row.detail = state, reason, detail


def _bad_news(before: State, after: State) -> bool:
    stopped = before in (State.RUNNING, State.PAUSED) and after not in (before, State.RUNNING, State.COMPLETED)
    return stopped or (after is State.FAILED and before is not State.FAILED)


async def _alarm(tx: AsyncSession, rollout: Rollout, now: datetime) -> None:
    await desk.open_alert(
        tx,
        kind="rollout",
        scope="fleet",
        subject=f"{rollout.id} {rollout.model}@{rollout.version}",
        severity="critical" if rollout.state is State.FAILED else "high",
        text=f"{rollout.model} {rollout.version} stopped: {rollout.reason}",
        body={"rollout": rollout.id, "model": rollout.model, "version": rollout.version, "state": rollout.state.value},
        now=now,
    )


def aborting(reason: str, effects: Sequence[Effect] | None) -> Change:
    """For `change`: a person stops the rollout; None: with the effects that it was started with.

    One that is over is taken back only where the effects are named: a stop that comes too late undoes nothing.
    """

    def decide(rollout: Rollout, evidence: Evidence, now: datetime) -> engine.Step:
        if effects is None and rollout.state in TERMINAL:
            advance(rollout.state, Event.STOP)  # raises: there is no such move
        chosen = rollout.policy if effects is None else effects
        return engine.abort(rollout, evidence, now, reason=reason, effects=chosen)

    return decide


def approving(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, now: engine.approve(rollout, now, by)


def pausing(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, now: engine.pause(rollout, now, by)


def resuming(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, now: engine.resume(rollout, now, by)


def promoting(by: str) -> Change:
    """For `change`."""
    return lambda rollout, evidence, _now: engine.promote(rollout, by, evidence.members)
