"""Change one rollout: load, decide, save it with what it owes, all in the caller's transaction.

I/O: none.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.rollouts import engine, reading, saved
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.states import QUEUED, Evidence, Rollout, State
from fleet.store import events, tables
from fleet.store import rollouts as store

Change = Callable[[Rollout, Evidence, datetime], engine.Step]


async def loaded(tx: AsyncSession, row: tables.Rollout, now: datetime) -> tuple[Rollout, Evidence]:
    """What the engine needs, from the rows of this transaction."""
    return saved.from_json(row.body), await reading.evidence(tx, row, now)


async def change(tx: AsyncSession, rollout_id: str, decide: Change, now: datetime, *, alarm: bool = False) -> Rollout:
    """Load, decide, save the rollout with what it owes. The caller's transaction makes it one.

    With `alarm`, a rollout that stops opens an alert; a person who stops one knows it already.

    Raises:
        RolloutNotFoundError: no such rollout.
        RolloutStateError: `decide` refuses.
    """
    row = await store.get(tx, rollout_id)
    if row is None:
        raise RolloutNotFoundError(f"there is no rollout {rollout_id!r}")
    before, evidence = await loaded(tx, row, now)
    step = decide(before, evidence, now)
    if step == engine.Step(before):
        return before
    row.body, row.state, row.reason = saved.to_json(step.rollout), step.rollout.state.value, step.rollout.reason
    row.updated_at = now
    for action in step.actions:
        await _owe(tx, step.rollout, action, now)
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
        case engine.Announce():
            row.told_at = now
            debt.kind, debt.version = "announce", rollout.version
            tx.add(debt)
        case engine.Recall(version=version):
            row.outcome, row.outcome_reason, row.outcome_detail = row.state, row.reason, row.detail
            row.state, row.reason, row.detail, row.recalled_at = QUEUED, None, None, now
            debt.kind, debt.version = "recall", version
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


def aborting(reason: str, *, back: bool) -> Change:
    """For `change`: a person stops the rollout."""
    return lambda rollout, evidence, now: engine.abort(rollout, evidence, now, reason=reason, back=back)


def pausing(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, now: engine.pause(rollout, now, by)


def resuming(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, now: engine.resume(rollout, now, by)


def promoting(by: str) -> Change:
    """For `change`."""
    return lambda rollout, _evidence, _now: engine.promote(rollout, by)
