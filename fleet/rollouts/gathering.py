"""Windows to the gate's comparisons: what is usual for each device, then interval by interval what came.

    newcomers ──► slow_above ──► saved ──► hours ──► rates ──► saved, ready          (a slice of devices at a time)
    sums, crashes of [until, now - LAG) ──► Trials.after ──► saved with the new `until`

Everything can be repeated: an interval counts when its sums and its end are saved, in one transaction.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import habits, histories, saved
from fleet.rollouts.states import Rollout
from fleet.rollouts.trials import ALL, CRASHES_A_DEVICE, Amounts, Doubt, Doubts, Interval, Kind, Trials
from fleet.store import evidence as store
from fleet.store import gates, releases, tables
from shared.errors import BadInputError

#: What came later than this before now may still be in a transaction that is not over.
LAG: Final = timedelta(seconds=5)
#: Taken in at once; after a pause of the manager several intervals follow each other.
LONGEST: Final = timedelta(minutes=10)
#: Looked at for what is usual.
HISTORY: Final = timedelta(days=7)
SLOW_HISTORY: Final = timedelta(days=2)
#: Devices whose habits are learnt in one go.
SLICE: Final = 500
#: Devices that must have ended in rollouts before, and the least share of failures that is called usual.
MIN_ENDED: Final = 20
LEAST_USUAL: Final = 0.02

_FORM: Final = TypeAdapter(Trials)


def trials_of(row: tables.TrialState | None) -> Trials:
    """What is saved in the row."""
    return Trials() if row is None else _FORM.validate_python(row.body)


async def begin(tx: AsyncSession, row: tables.Rollout) -> tables.TrialState:
    """The row of the comparisons, made if it is not there. The caller's transaction writes."""
    known = await gates.trials(tx, row.id)
    if known is not None:
        return known
    bad, ended = await store.usual_failures(tx, row)
    usual = max(LEAST_USUAL, (1 + bad) / (2 + ended)) if ended >= MIN_ENDED else None
    try:
        metrics = await releases.metrics(tx, row.model, row.version)
    except BadInputError:  # the devices will refuse it with the reason
        metrics = None
    made = tables.TrialState(rollout_id=row.id, until=row.created_at, body=_FORM.dump_python(Trials(), mode="json"))
    made.usual_failures, made.accuracy = usual, (metrics or {}).get("accuracy")
    tx.add(made)
    await tx.flush()
    return made


# --- what is usual ------------------------------------------------------------------------------------------


async def first_look(tx: AsyncSession, row: tables.Rollout, now: datetime) -> Sequence[Mapping[str, Any]]:
    """Habits, not ready yet, of the next devices that have none: what counts as slow, and who proves nothing."""
    found = await store.newcomers(tx, row, limit=SLICE)
    ids = [device for device, _ in found]
    if not ids:
        return ()
    bins = await store.latency_bins(tx, row, ids, since=row.created_at - SLOW_HISTORY)
    above = histories.slow_above(ids, bins)
    latest = now - timedelta(seconds=saved.from_json(row.body).limits.silence_seconds)
    silent = await store.unheard(tx, ids, latest)
    return [
        {
            "rollout_id": row.id, "device_id": device, "hardware": hardware, "ready": False,
            "slow_above": above[device], "excluded": device in silent, "crashes": 0, "silent": device in silent,
            **dict.fromkeys(_RATES, 0.0),
        }
        for device, hardware in found
    ]  # fmt: skip


_RATES: Final = (
    "error_rate", "slow_rate", "crash_rate", "wrong_rate", "error_squares", "error_expected", "slow_squares",
    "slow_expected", "wrong_expected",
)  # fmt: skip


async def second_look(
    tx: AsyncSession, row: tables.Rollout, before: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """The rates for habits that `first_look` made, which must be stored."""
    ids = [str(one["device_id"]) for one in before]
    since, slow_since = row.created_at - HISTORY, row.created_at - SLOW_HISTORY
    hours = await store.hours(tx, row, ids, since=since, slow_since=slow_since)
    hour = range(*(int(at.timestamp() // store.HOUR_SECONDS) + 1 for at in (slow_since, row.created_at)))
    excluded = {str(one["device_id"]) for one in before if one["excluded"]}
    return [
        {
            "rollout_id": row.id, "ready": True,
            "excluded": bool(one.pop("looped")) or one["device_id"] in excluded, **one,
        }
        for one in histories.rates(ids, hours, hour)
    ]  # fmt: skip


# --- what came ----------------------------------------------------------------------------------------------


async def interval(tx: AsyncSession, row: tables.Rollout, since: datetime, until: datetime) -> Interval:
    """Everything but crashes that came between, by kind and hardware class."""
    found: dict[Kind, dict[str, Amounts]] = {"errors": {}, "slow": {}, "wrong": {}, "crashes": {}}
    for it in await store.sums(tx, row, since=since, until=until):
        counted: dict[Kind, tuple[float, float, float]] = {
            "errors": (it.failed, it.requests, it.failed_due),
            "slow": (it.slow, it.results, it.slow_due),
            "wrong": (it.wrong, it.labelled, it.wrong_due),
            "crashes": (0, it.seconds, it.crash_due),
        }
        for kind, (events, exposure, due) in counted.items():
            before = found[kind].get(it.hardware, Amounts())
            found[kind][it.hardware] = before.plus(_one_sided(it.candidate, events, exposure, due))
    return {
        kind: classes
        for kind, classes in found.items()
        if any(it.candidate_due + it.control_due for it in classes.values())
    }


def _one_sided(candidate: bool, events: float, exposure: float, due: float) -> Amounts:
    if candidate:
        return Amounts(candidate=events, candidate_exposure=exposure, candidate_due=due)
    return Amounts(control=events, control_exposure=exposure, control_due=due)


async def crashes(
    tx: AsyncSession, row: tables.Rollout, since: datetime, until: datetime, latest: datetime
) -> Mapping[str, Amounts]:
    """Restarts between, and devices unheard of since `latest`, by hardware class; the habits remember what counted."""
    found: dict[str, Amounts] = {}
    for habit, candidate, restarts in await store.restarted(tx, row, since=since, until=until):
        _count(found, habit, candidate, min(restarts, CRASHES_A_DEVICE - habit.crashes))
    for habit, candidate in await store.fell_silent(tx, row, latest):
        habit.silent = True
        _count(found, habit, candidate, min(1, CRASHES_A_DEVICE - habit.crashes))
    return found


def _count(found: dict[str, Amounts], habit: tables.Habit, candidate: bool, number: int) -> None:
    habit.crashes += number
    found[habit.hardware] = found.get(habit.hardware, Amounts()).plus(_one_sided(candidate, number, 0.0, 0.0))


async def doubts(tx: AsyncSession, row: tables.Rollout) -> Doubts:
    """phi of each class, never below that of all together; and how many events of the past stand behind the rates."""
    rows = await store.spreads(tx, row)
    return {
        "errors": _doubts([(it.hardware, it.candidate, it.error_squares, it.errors) for it in rows], rows),
        "slow": _doubts([(it.hardware, it.candidate, it.slow_squares, it.slow) for it in rows], rows),
        "wrong": _doubts([(it.hardware, it.candidate, 0.0, it.wrong) for it in rows], rows),
    }


def _doubts(parts: Sequence[tuple[str, bool, float, float]], rows: Sequence[store.Spread]) -> Mapping[str, Doubt]:
    """By scope, from (class, told, squares, events) and the number of devices behind each."""
    found: dict[str, Doubt] = {}
    for scope in (ALL, *dict.fromkeys(part[0] for part in parts)):
        mine = [(part, row.devices) for part, row in zip(parts, rows, strict=True) if scope in (ALL, part[0])]
        phi = habits.dispersion(sum(part[2] for part, _ in mine), sum(part[3] for part, _ in mine))
        known = [sum(part[3] + devices for part, devices in mine if part[1] is side) for side in (True, False)]
        least = found[ALL].phi if scope != ALL else 1.0
        found[scope] = Doubt(max(least, phi), max(1.0, known[0]), max(1.0, known[1]))
    return found


async def take(
    tx: AsyncSession, row: tables.Rollout, came: Interval, doubt: Doubts, *, since: datetime, until: datetime
) -> bool:
    """Save the interval; False when somebody else did. The caller's transaction writes."""
    state = await begin(tx, row)
    if state.until != since:
        return False
    rollout: Rollout = saved.from_json(row.body)
    latest = until - timedelta(seconds=rollout.limits.silence_seconds)
    everything = {kind: dict(classes) for kind, classes in came.items()}
    for hardware, amounts in (await crashes(tx, row, since, until, latest)).items():
        mine = everything.setdefault("crashes", {})
        mine[hardware] = mine.get(hardware, Amounts()).plus(amounts)
    after = trials_of(state).after(everything, doubt, rollout.limits.max_degradation)
    state.body, state.until = _FORM.dump_python(after, mode="json"), until
    return True


def next_end(since: datetime, now: datetime) -> datetime:
    """Up to when the next interval goes."""
    return min(now - LAG, since + LONGEST)
