"""Queries that add windows up for the gate: in the database, so that a fleet's minute is a few rows.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    TableValuedAlias,
    and_,
    case,
    cast,
    extract,
    func,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Deployment, Device, Habit, Rollout, Window

#: Newest windows of each side that guard rails look at.
MAX_WINDOWS: Final = 2000
HOUR_SECONDS: Final = 3600
#: States in which a device of a completed rollout ended badly.
BAD: Final = ("failed", "refused", "rolled-back", "timed-out")


class Sums(NamedTuple):
    """Windows of one hardware class on one side, added up; `due` is what the devices' histories let expect."""

    hardware: str
    candidate: bool
    requests: float
    failed: float
    failed_due: float
    results: float
    slow: float
    slow_due: float
    labelled: float
    wrong: float
    wrong_due: float
    seconds: float
    crash_due: float


class Spread(NamedTuple):
    """Habits of some devices, added up: `errors`, `slow` and `wrong` are events of the days before."""

    hardware: str
    candidate: bool
    devices: int
    error_squares: float
    errors: float
    slow_squares: float
    slow: float
    wrong: float


class Hour(NamedTuple):
    """One device in one hour before the rollout."""

    device: str
    hour: int  # since the epoch
    requests: float
    failed: float
    slow: float
    seconds: float
    restarts: float
    labelled: float
    wrong: float


class Side(NamedTuple):
    """The newest windows of one side."""

    requests: int
    failed: int
    labelled: int
    correct: int
    restarts: int  # most on one device
    latency: Mapping[int, int]


async def crashing(tx: AsyncSession, rollout_id: str, least: int) -> frozenset[str]:
    """Devices of the rollout on which workers of the release died so often."""
    query = select(Habit.device_id).where(Habit.rollout_id == rollout_id, Habit.crashes >= least)
    return frozenset((await tx.scalars(query)).all())


def _latency(tx: AsyncSession, body: Any) -> TableValuedAlias:
    """The latency bins of a window as rows (key, value)."""
    if tx.get_bind().dialect.name == "sqlite":
        return func.json_each(body, "$.latency").table_valued("key", "value")
    return func.json_each_text(body["latency"]).table_valued("key", "value")


def _slow(tx: AsyncSession) -> ScalarSelect[int]:
    """Results of a window above the device's own limit."""
    each = _latency(tx, Window.body)
    query = select(func.coalesce(func.sum(cast(each.c.value, Integer)), 0)).select_from(each)
    return query.where(cast(each.c.key, Integer) > Habit.slow_above).correlate(Window, Habit).scalar_subquery()


def _number(name: str) -> ColumnElement[int]:
    return func.coalesce(Window.body[name].as_integer(), 0)


_RESULTS: Final = Window.requests - Window.failed
_SECONDS: Final = extract("epoch", Window.end) - extract("epoch", Window.start)
_TOLD: Final = Deployment.told_at.is_not(None)
_RISK: Final = and_(Habit.crashes < 2, Habit.excluded.is_(False))  # trials.CRASHES_A_DEVICE


def _of_model(rollout: Rollout) -> ColumnElement[bool]:
    """Windows of the model, looked for by time: SQLite would read all that it ever had by the index over models."""
    return func.coalesce(Window.model, "") == rollout.model


def _sides(rollout: Rollout) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Windows of the release on devices that were told; windows of others on devices that were not, or not yet."""
    return (
        and_(Window.version == rollout.version, _TOLD),
        and_(Window.version != rollout.version, Deployment.told_at.is_(None)),
    )


def _joined(rollout: Rollout, *columns: Any) -> Select[Any]:
    """Windows of the rollout's model with habit and deployment of their device."""
    query = select(*columns).join(Habit, and_(Habit.device_id == Window.device_id, Habit.rollout_id == rollout.id))
    mine = and_(Deployment.device_id == Window.device_id, Deployment.rollout_id == rollout.id)
    return query.outerjoin(Deployment, mine).where(_of_model(rollout), Habit.ready.is_(True))


async def sums(tx: AsyncSession, rollout: Rollout, *, since: datetime, until: datetime) -> Sequence[Sums]:
    """Everything that came at `since` or later and before `until`, by hardware class and side."""
    here, there = _sides(rollout)
    # A version that was just loaded answers its first requests slowly; the device's own probation judges that.
    steady = and_(Habit.slow_rate > 0, Window.body["phase"].as_string() == "serving")
    each = (
        (Window.requests, Window.failed, Window.requests * Habit.error_rate),
        *((case((steady, column), else_=0) for column in (_RESULTS, _slow(tx), _RESULTS * Habit.slow_rate)),),
        (_number("labelled"), _number("labelled") - _number("correct"), _number("labelled") * Habit.wrong_rate),
    )
    columns = [func.coalesce(func.sum(column), 0) for group in each for column in group]
    at_risk = (_SECONDS, _SECONDS * Habit.crash_rate)
    columns += [func.coalesce(func.sum(case((_RISK, column), else_=0)), 0) for column in at_risk]
    arm = case((here, 1), else_=0)
    query = _joined(rollout, Habit.hardware, arm, *columns).where(
        Window.received_at >= since, Window.received_at < until, or_(here, there)
    )
    rows = await tx.execute(query.group_by(Habit.hardware, arm))
    found = []
    for row in rows:
        numbers = [float(it) for it in row[2:]]
        found.append(Sums(row[0], bool(row[1]), *numbers))
    return found


async def restarted(
    tx: AsyncSession, rollout: Rollout, *, since: datetime, until: datetime
) -> Sequence[tuple[Habit, bool, int]]:
    """Devices at risk whose worker died, whether they have the release, and how often."""
    here, there = _sides(rollout)
    arm, restarts = func.max(case((here, 1), else_=0)), func.sum(_number("restarts"))
    counted = (
        _joined(rollout, Window.device_id.label("device"), arm.label("arm"), restarts.label("restarts"))
        .where(Window.received_at >= since, Window.received_at < until, or_(here, there), _RISK)
        .where(_number("restarts") > 0)
        .group_by(Window.device_id)
        .subquery()
    )
    query = select(Habit, counted.c.arm, counted.c.restarts).join(counted, counted.c.device == Habit.device_id)
    rows = await tx.execute(query.where(Habit.rollout_id == rollout.id))
    return [(row[0], bool(row[1]), int(row[2])) for row in rows]


async def fell_silent(tx: AsyncSession, rollout: Rollout, latest: datetime) -> Sequence[tuple[Habit, bool]]:
    """Devices at risk that nothing was heard of since `latest`, not counted yet; whether they have the release."""
    mine = and_(Deployment.device_id == Habit.device_id, Deployment.rollout_id == rollout.id)
    took = and_(_TOLD, Deployment.state.in_(("probation", "committed")), Deployment.recalled_at.is_(None))
    query = (
        select(Habit, case((took, 1), else_=0))
        .join(Device, Device.id == Habit.device_id)
        .outerjoin(Deployment, mine)
        .where(Habit.rollout_id == rollout.id, Habit.ready.is_(True), Habit.silent.is_(False), _RISK)
        .where(Device.lifecycle == "active", Device.seen_at < latest)
        .where(or_(took, Deployment.told_at.is_(None)))
    )
    return [(row[0], bool(row[1])) for row in await tx.execute(query)]


async def spreads(tx: AsyncSession, rollout: Rollout) -> Sequence[Spread]:
    """The habits of each hardware class and side, added up."""
    mine = and_(Deployment.device_id == Habit.device_id, Deployment.rollout_id == rollout.id)
    arm = case((_TOLD, 1), else_=0)
    names = (Habit.error_squares, Habit.error_expected, Habit.slow_squares, Habit.slow_expected, Habit.wrong_expected)
    query = (
        select(Habit.hardware, arm, func.count(), *(func.sum(column) for column in names))
        .outerjoin(Deployment, mine)
        .where(Habit.rollout_id == rollout.id, Habit.ready.is_(True))
        .group_by(Habit.hardware, arm)
        .order_by(Habit.hardware)
    )
    rows = await tx.execute(query)
    return [Spread(row[0], bool(row[1]), int(row[2]), *(float(it) for it in row[3:])) for row in rows]


# --- before the rollout -------------------------------------------------------------------------------------


async def newcomers(tx: AsyncSession, rollout: Rollout, *, limit: int) -> Sequence[tuple[str, str]]:
    """Active devices with the model whose habits are not known yet: id, hardware class."""
    mine = and_(Habit.device_id == Device.id, Habit.rollout_id == rollout.id)
    query = (
        select(Device.id, Device.hardware)
        .outerjoin(Habit, mine)
        .where(Device.lifecycle == "active", Device.serving[rollout.model].as_string().is_not(None))
        .where(or_(Habit.ready.is_(None), Habit.ready.is_(False)))
        .order_by(Device.hardware, Device.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in await tx.execute(query)]


async def unheard(tx: AsyncSession, devices: Collection[str], latest: datetime) -> Collection[str]:
    """Those of `devices` that nothing was heard of since `latest`."""
    query = select(Device.id).where(Device.id.in_(devices))
    return set((await tx.scalars(query.where(or_(Device.seen_at.is_(None), Device.seen_at < latest)))).all())


async def latency_bins(
    tx: AsyncSession, rollout: Rollout, devices: Collection[str], *, since: datetime
) -> Sequence[tuple[str, int, int]]:
    """Device, latency bin, results, of all that came before the rollout."""
    each = _latency(tx, Window.body)
    place = cast(each.c.key, Integer)
    query = (
        select(Window.device_id, place, func.sum(cast(each.c.value, Integer)))
        .select_from(Window)
        .join(each, each.c.value.is_not(None))
        .where(Window.device_id.in_(devices), Window.model == rollout.model, Window.version != rollout.version)
        .where(Window.received_at >= since, Window.received_at < rollout.created_at)
        .group_by(Window.device_id, place)
    )
    return [(row[0], int(row[1]), int(row[2])) for row in await tx.execute(query)]


async def hours(
    tx: AsyncSession, rollout: Rollout, devices: Collection[str], *, since: datetime, slow_since: datetime
) -> Sequence[Hour]:
    """Every device in every hour before the rollout; slow results only from `slow_since` on. Habits must be there."""
    ends = extract("epoch", Window.end)
    hour = cast((ends - ends % HOUR_SECONDS) / HOUR_SECONDS, Integer)
    slow = case((Window.received_at >= slow_since, _slow(tx)), else_=0)
    columns = (Window.requests, Window.failed, slow, _SECONDS, _number("restarts"), _number("labelled"),
               _number("labelled") - _number("correct"))  # fmt: skip
    query = (
        select(Window.device_id, hour, *(func.sum(column) for column in columns))
        .join(Habit, and_(Habit.device_id == Window.device_id, Habit.rollout_id == rollout.id))
        .where(Window.device_id.in_(devices), Window.model == rollout.model, Window.version != rollout.version)
        .where(Window.received_at >= since, Window.received_at < rollout.created_at)
        .group_by(Window.device_id, hour)
    )
    return [Hour(row[0], int(row[1]), *(float(it) for it in row[2:])) for row in await tx.execute(query)]


async def usual_failures(tx: AsyncSession, rollout: Rollout, *, days: int = 90) -> tuple[int, int]:
    """(badly, at all): how devices ended in rollouts of the model that completed before this one."""
    ended = func.coalesce(Deployment.outcome, Deployment.state)
    query = (
        select(func.coalesce(func.sum(case((ended.in_(BAD), 1), else_=0)), 0), func.count())
        .join(Rollout, Rollout.id == Deployment.rollout_id)
        .where(Rollout.model == rollout.model, Rollout.state == "completed", Rollout.id != rollout.id)
        .where(Rollout.created_at >= rollout.created_at - timedelta(days=days))
        .where(ended.in_((*BAD, "committed")))
    )
    row = (await tx.execute(query)).one()
    return int(row[0]), int(row[1])


# --- the newest windows of a side ---------------------------------------------------------------------------


async def side(tx: AsyncSession, rollout: Rollout, *, candidate: bool, limit: int = MAX_WINDOWS) -> Side:
    """The newest windows of the release on devices that were told, or of other versions on the others."""
    mine = and_(Deployment.device_id == Window.device_id, Deployment.rollout_id == rollout.id)
    condition = _TOLD if candidate else Deployment.told_at.is_(None)
    version = Window.version == rollout.version if candidate else Window.version != rollout.version
    of_model = Window.model == rollout.model if candidate else _of_model(rollout)
    newest = (
        select(Window.device_id, Window.requests, Window.failed, Window.body)
        .outerjoin(Deployment, mine)
        .where(of_model, version, condition, Window.received_at >= rollout.created_at)
        .order_by(Window.received_at.desc(), Window.sequence.desc())
        .limit(limit)
        .subquery()
    )
    numbers = [func.coalesce(newest.c.body[name].as_integer(), 0) for name in ("labelled", "correct", "restarts")]
    columns = (newest.c.requests, newest.c.failed, *numbers)
    added = (func.sum(column).label(str(place)) for place, column in enumerate(columns))
    each = select(newest.c.device_id, *added).group_by(newest.c.device_id).subquery()
    totals = [func.coalesce(func.sum(each.c[str(i)]), 0) for i in range(4)]
    row = (await tx.execute(select(*totals, func.coalesce(func.max(each.c["4"]), 0)))).one()
    bins = _latency(tx, newest.c.body)
    place = cast(bins.c.key, Integer)
    counted = select(place, func.sum(cast(bins.c.value, Integer))).select_from(newest)
    counted = counted.join(bins, bins.c.value.is_not(None))
    latency = {int(key): int(value) for key, value in await tx.execute(counted.group_by(place))}
    requests, failed, labelled, correct, restarts = (int(it) for it in row)
    return Side(requests, failed, labelled, correct, restarts, latency)
