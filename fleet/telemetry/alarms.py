"""Verdicts to alerts: one for each feature and scope, and none for a device whose site or fleet drifts alike.

I/O: none.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.store import alerts as alert_store
from fleet.store import drift as store
from fleet.telemetry import verdict
from fleet.telemetry.finding import FLEET, Cell, Finding, level
from fleet.telemetry.verdict import Rule, Standing

POINTS: Final = 40  # of a sparkline
KIND: Final = "drift"

#: cell of a group -> its devices' scopes; and whether the group rings without some of them
Members = Callable[[Cell], Sequence[str]]
Without = Callable[[Cell, Sequence[str]], bool]


def body(
    rule: Rule, finding: Finding, standing: Standing, history: Sequence[float], floor: str | None
) -> dict[str, Any]:
    """What is stored of a finding: every statistic, both histograms, the alarm, a short history."""
    psi = max(0.0, finding.statistics.psi_corrected)
    graded = verdict.grade(rule, finding)
    return {
        **asdict(finding.statistics),
        "psi_limit": finding.psi_limit,
        "calibrated_p": finding.p,
        "alarm": None if finding.alarm is None else asdict(finding.alarm),
        "dispersion": list(finding.dispersion),
        "missing": finding.missing,
        "quiet": standing.quiet,
        "rang": standing.rang,
        "floor": floor,
        "severity": graded.severity,
        "confirmed": graded.confirmed,
        "persisting": standing.rang >= verdict.PERSISTING,
        "min_samples": rule.min_samples,
        "threshold": rule.psi_threshold,
        "group": finding.reference.group,
        "kind": finding.reference.kind,
        "edges": list(finding.reference.edges),
        "counts": list(finding.counts),
        "reference": list(finding.expected),
        "text": verdict.sentence(rule, finding),
        "history": [*history, round(psi, 4)][-POINTS:],
    }


def wanted(standings: Mapping[Cell, Standing], members: Members, without: Without) -> set[Cell]:
    """Cells that need an alert of their own.

    A group has one when more than half of its devices drift, or when it drifts without those that do: one bad device
    among many is no matter of the group. Then its devices, and smaller groups within it, have none.
    """
    drifted = {cell for cell, standing in standings.items() if standing.state == "drifted"}
    shared = {cell for cell in drifted if level(cell[0]) != "device" and _shared(cell, standings, members, without)}
    covered = {(scope, *cell[1:]) for cell in shared for scope in members(cell)}
    whole = {cell[1:] for cell in shared if cell[0] == FLEET}
    alone = {cell for cell in drifted if level(cell[0]) == "device" and cell not in covered}
    return alone | {cell for cell in shared if cell[0] == FLEET or cell[1:] not in whole}


def _shared(cell: Cell, standings: Mapping[Cell, Standing], members: Members, without: Without) -> bool:
    scopes = members(cell)
    states = {scope: standings[scope, *cell[1:]].state for scope in scopes if (scope, *cell[1:]) in standings}
    judged = [scope for scope, state in states.items() if state != "collecting"]
    bad = [scope for scope, state in states.items() if state == "drifted"]
    if len(scopes) < 2:
        return False
    return 2 * len(bad) > max(len(judged), 1) or not bad or without(cell, bad)


async def settle(
    tx: AsyncSession,
    rule: Rule,
    found: Sequence[Finding],
    standings: Mapping[Cell, Standing],
    needed: Collection[Cell],
    now: datetime,
) -> None:
    """Open, keep and resolve alerts after one look; `needed` are the cells that `wanted` names."""
    for finding in found:
        if finding.cell in needed:
            await _raise(tx, rule, finding, standings[finding.cell], now)
    cells = {(cell[0], subject_of(cell)): cell for cell in standings}
    for alert in await alert_store.live(tx, kind=KIND):
        cell = cells.get((alert.scope, alert.subject))
        if cell is None or cell in needed:
            continue
        drifted = standings[cell].state == "drifted"
        because = _because(cell, needed) if drifted else "back to the reference"
        await desk.clear(tx, alert, because=because, now=now)


def _because(cell: Cell, needed: Collection[Cell]) -> str:
    if (FLEET, *cell[1:]) in needed:
        return "the whole fleet drifts, see its alert"
    return "its group drifts, see its alert" if level(cell[0]) == "device" else "single devices drift, see their alerts"


def subject_of(cell: Cell) -> str:
    """What an alert about `cell` is called."""
    _, model, version, feature = cell
    return f"{model}@{version} {feature}"[:160]


async def _raise(tx: AsyncSession, rule: Rule, finding: Finding, standing: Standing, now: datetime) -> None:
    graded, alarm = verdict.grade(rule, finding), finding.alarm
    psi = finding.statistics.psi_corrected if alarm is None else alarm.psi
    where = "the whole fleet" if finding.scope == FLEET else finding.scope.removeprefix("device:").replace(":", " ")
    await desk.open_alert(
        tx,
        kind=KIND,
        scope=finding.scope,
        subject=subject_of(finding.cell),
        severity=graded.severity or "low",
        text=f"{finding.model} {finding.version} on {where}: {verdict.sentence(rule, finding)}",
        body={
            "model": finding.model,
            "version": finding.version,
            "feature": finding.feature,
            "psi": round(max(0.0, psi), 4),
            "limit": rule.psi_threshold,
            "p": finding.p if alarm is None else alarm.p,
            "samples": finding.samples if alarm is None else alarm.samples,
            "shift": round(finding.statistics.shift, 2),
            "confirmed": graded.confirmed,
            "persisting": standing.rang >= verdict.PERSISTING,
            "test": None if alarm is None else alarm.test,
            "hours": None if alarm is None else alarm.hours,
        },
        now=now,
    )


async def forget(tx: AsyncSession, gone: Collection[tuple[str, str, str]], now: datetime) -> None:
    """Verdicts and alerts on (scope, model, version) that no longer serve there."""
    if not gone:
        return
    for scope, model, version in sorted(gone):
        await store.forget(tx, scope, model, version)
    for alert in await alert_store.live(tx, kind=KIND):
        if (alert.scope, str(alert.body.get("model")), str(alert.body.get("version"))) in gone:
            await desk.clear(tx, alert, because="this version no longer serves there", now=now)
