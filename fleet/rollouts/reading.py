"""Rows of the database to the engine's evidence, and to what people see.

I/O: none.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import gate, progress, saved
from fleet.rollouts.errors import RolloutNotFoundError
from fleet.rollouts.states import DriftSign, Evidence, Member, Vitals
from fleet.schedules.turns import in_turn
from fleet.store import events, tables
from fleet.store import rollouts as store
from shared.sketches import merge_latency

POINTS: Final = 40  # of a sparkline
TIMELINE: Final = 100


async def evidence(tx: AsyncSession, row: tables.Rollout, now: datetime) -> Evidence:
    """All that the manager knows of a rollout in this transaction, at `now`."""
    rows = await store.members(tx, row.id)
    owed = {action.device_id for action in await store.owed(tx, rollout_id=row.id, limit=len(rows) + 1)}
    found = tuple(member(deployment, device, row.model, deployment.device_id in owed) for deployment, device in rows)
    found = await in_turn(tx, row, found, {device.id: device for _, device in rows}, now)
    touched = {one.device for one in found if one.touched}
    windows = await store.windows(tx, row.model, since=row.created_at)
    return Evidence(
        members=found,
        candidate=vitals(_of(windows, touched, row.version)),
        control=vitals(window for window in windows if window.version != row.version),
        drift=drift_sign(await store.drift(tx, row.model), row.version, touched),
    )


def member(deployment: tables.Deployment, device: tables.Device, model: str, owed: bool) -> Member:
    """One row of `deployments` and its device."""
    return Member(
        device=deployment.device_id,
        wave=deployment.wave,
        since=deployment.since,
        state=deployment.state,
        reason=deployment.reason,
        detail=deployment.detail,
        previous=deployment.previous,
        told_at=deployment.told_at,
        recalled_at=deployment.recalled_at,
        outcome=deployment.outcome,
        outcome_reason=deployment.outcome_reason,
        outcome_detail=deployment.outcome_detail,
        owed=owed,
        online=device.online,
        seen_at=device.seen_at,
        serving=device.serving.get(model),
        active=device.lifecycle == "active",
        fetched_bytes=deployment.fetched_bytes,
        total_bytes=deployment.total_bytes,
    )


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
    """The worst drift of `version` on `devices`; a feature that drifts on another version too is the world's doing."""
    scopes = {f"device:{device}" for device in devices}
    world = {row.feature for row in rows if row.version != version and row.state == "drifted"}
    mine = [row for row in rows if row.version == version and row.scope in scopes and row.state != "collecting"]
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
    devices = [device for _, device in await store.members(tx, rollout_id)]
    touched = {one.device for one in known.members if one.touched}
    windows = _of(await store.windows(tx, row.model, since=row.created_at), touched, row.version)
    lines = await events.newest(tx, rollout_id=rollout_id, limit=TIMELINE)
    facts = progress.Facts(
        rollout=rollout,
        evidence=known,
        checks=gate.judge(rollout, known, now),
        histories=histories(windows),
        sites={device.id: device.site for device in devices},
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
