"""Rows of the database to the engine's evidence, and to what people see.

I/O: none.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import gate, gathering, pacing, progress, saved, verdicts
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.roster import Roster
from fleet.rollouts.states import DriftSign, Evidence, HookAnswer, SiteBudget, SiteLoad, Vitals
from fleet.schedules.turns import in_turn
from fleet.store import events, gates, tables
from fleet.store import evidence as counted
from fleet.store import rollouts as store
from shared.sketches import merge_latency

POINTS: Final = 40  # of a sparkline
TIMELINE: Final = 100
HOUR: Final = timedelta(hours=1)
#: Workers of one device that died: from here on it counts as crashing.
CRASHES: Final = 2


async def evidence(tx: AsyncSession, row: tables.Rollout, now: datetime, roster: Roster | None = None) -> Evidence:
    """All that the manager knows of a rollout in this transaction; `roster` remembers its devices between looks."""
    rows, owed = await store.members(tx, row.id, row.model), await store.owing(tx, row.id)
    found = (roster or Roster()).members(row.id, rows, owed)
    found = await in_turn(tx, row, found, now)
    drift = await store.drift(tx, row.model)
    touched = {one.device for one in found if one.touched} if drift else set[str]()
    state, said = await gates.trials(tx, row.id), await gates.hook(tx, row.id)
    return Evidence(
        members=found,
        elsewhere=await store.at_work_elsewhere(tx, row.id),
        sites=await _drawn_elsewhere(tx, row, now),
        crashing=await counted.crashing(tx, row.id, CRASHES),
        candidate=_vitals(await counted.side(tx, row, candidate=True)),
        control=_vitals(await counted.side(tx, row, candidate=False)),
        drift=drift_sign(drift, row.version, touched),
        trials=gathering.trials_of(state),
        usual_failures=None if state is None else state.usual_failures,
        accuracy=None if state is None else state.accuracy,
        hook=None if said is None else HookAnswer(said.wave, _RESULTS[said.result], said.reason, said.since),
    )


_RESULTS: Final[Mapping[str, Literal["pass", "wait", "fail"]]] = {"pass": "pass", "wait": "wait", "fail": "fail"}


def _vitals(side: counted.Side) -> Vitals:
    p95 = merge_latency((side.latency,)).quantile_ms(0.95)
    return Vitals(side.requests, side.failed, p95, side.restarts, side.labelled, side.correct)


async def _drawn_elsewhere(tx: AsyncSession, row: tables.Rollout, now: datetime) -> Mapping[str, SiteLoad]:
    """What the other rollouts draw over the line of each site; not looked for when this one has no budget."""
    if saved.from_json(row.body).site_budget == SiteBudget():
        return {}
    found: dict[str, SiteLoad] = {}
    others = [other for other in await store.lately(tx, now - HOUR) if other.id != row.id]
    for other in others:
        each = saved.from_json(other.body).bytes_each
        for site, flying, recent in await store.drawn(tx, other.id, now - HOUR):
            load = found.get(site, SiteLoad())
            found[site] = SiteLoad(load.in_flight_bytes + flying * each, load.hourly_bytes + recent * each)
    return found


def vitals(windows: Iterable[tables.Window]) -> Vitals:
    """Windows added up. Their bodies were checked when they came in."""
    restarts: dict[str, int] = {}
    requests = failed = 0
    latencies: list[dict[int, int]] = []
    for window in windows:
        requests, failed = requests + window.requests, failed + window.failed
        restarts[window.device_id] = restarts.get(window.device_id, 0) + int(window.body.get("restarts", 0))
        latencies.append({int(index): number for index, number in window.body.get("latency", {}).items()})
    p95 = merge_latency(latencies).quantile_ms(0.95)
    return Vitals(requests=requests, failed=failed, p95_ms=p95, restarts=max(restarts.values(), default=0))


def drift_sign(rows: Sequence[tables.DriftState], version: str, devices: set[str]) -> DriftSign | None:
    """The worst drift of `version` on `devices`, each and as groups.

    A feature that drifts on another version too is the world's doing.
    """
    scopes = {f"device:{device}" for device in devices}
    world = {row.feature for row in rows if row.version != version and row.state == "drifted"}
    mine = [
        row
        for row in rows
        if row.version == version
        and row.state != "collecting"
        and (row.scope in scopes or not row.scope.startswith("device:"))
    ]
    judged = [row for row in mine if row.feature not in world]
    if not judged:
        return None
    worst = max(judged, key=lambda row: (row.state == "drifted", row.body.get("psi_corrected") or 0.0))
    psi = float(worst.body.get("psi_corrected") or 0.0)
    return DriftSign(max(0.0, psi), worst.feature, worst.scope.removeprefix("device:"), worst.state == "drifted")


async def rollout_view(tx: AsyncSession, rollout_id: str, now: datetime) -> progress.RolloutView:
    """What people see of one rollout.

    Raises:
        RolloutNotFoundError: no such rollout.
    """
    row = await store.get(tx, rollout_id)
    if row is None:
        raise RolloutNotFoundError(f"there is no rollout {rollout_id!r}")
    rollout, known = saved.from_json(row.body), await evidence(tx, row, now)
    touched = {one.device for one in known.members if one.touched}
    windows = _of(await store.windows(tx, row.model, since=row.created_at), touched, row.version)
    lines = await events.newest(tx, rollout_id=rollout_id, limit=TIMELINE)
    facts = progress.Facts(
        rollout=rollout,
        evidence=known,
        checks=gate.judge(rollout, known, now),
        histories={
            **verdicts.histories(await gates.verdicts(tx, rollout_id, before=None, limit=POINTS)),
            **histories(windows),
        },
        waits=pacing.waits(rollout, known, now),
        timeline=[progress.TimelineEntry(it.sequence, it.at, it.level, it.subject, it.text) for it in lines],
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        now=now,
    )
    return progress.view(facts)


def histories(windows: Sequence[tables.Window]) -> Mapping[str, tuple[float, ...]]:
    """Check name -> its value over time, at most `POINTS` of them. `windows` oldest first."""
    size = max(1, -(-len(windows) // POINTS))
    chunks = [vitals(windows[start : start + size]) for start in range(0, len(windows), size)]
    return {
        "errors": tuple(ratio for chunk in chunks if (ratio := chunk.error_ratio) is not None),
        "latency p95": tuple(chunk.p95_ms for chunk in chunks if chunk.p95_ms is not None),
        "restarts": tuple(float(chunk.restarts) for chunk in chunks),
    }


def _of(windows: Iterable[tables.Window], devices: set[str], version: str) -> list[tables.Window]:
    return [window for window in windows if window.version == version and window.device_id in devices]
