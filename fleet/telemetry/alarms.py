"""Verdicts to alerts: one for each device and feature, or one for the fleet where every device drifts alike.

I/O: none.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import desk
from fleet.store import alerts as alert_store
from fleet.store import drift as store
from fleet.store import tables
from fleet.telemetry import verdict
from fleet.telemetry.baselines import Reference
from fleet.telemetry.drift import Statistics
from fleet.telemetry.verdict import Rule, Standing

FLEET: Final = "fleet"
POINTS: Final = 40  # of a sparkline
KIND: Final = "drift"


@dataclass(frozen=True, slots=True)
class Finding:
    """One feature of one release in one scope, compared."""

    scope: str
    model: str
    version: str
    feature: str
    samples: int
    statistics: Statistics
    reference: Reference
    counts: tuple[int, ...]

    @property
    def cell(self) -> tuple[str, str, str, str]:
        return self.scope, self.model, self.version, self.feature


def body(rule: Rule, finding: Finding, standing: Standing, history: Sequence[float]) -> dict[str, Any]:
    """What is stored of a finding: every statistic, both histograms, a short history."""
    psi = max(0.0, finding.statistics.psi_corrected)
    return {
        **asdict(finding.statistics),
        "quiet": standing.quiet,
        "severity": verdict.severity(rule, psi) if finding.samples >= rule.min_samples else None,
        "min_samples": rule.min_samples,
        "threshold": rule.psi_threshold,
        "group": finding.reference.group,
        "kind": finding.reference.kind,
        "edges": list(finding.reference.edges),
        "counts": list(finding.counts),
        "reference": list(finding.reference.counts),
        "text": verdict.sentence(rule, finding.feature, finding.samples, finding.statistics),
        "history": [*history, round(psi, 4)][-POINTS:],
    }


async def settle(
    tx: AsyncSession,
    rule: Rule,
    found: Sequence[Finding],
    standings: Mapping[tuple[str, str, str, str], Standing],
    now: datetime,
) -> None:
    """Open, keep and resolve alerts after one look."""
    rows = await store.states(tx)
    common = _common(rows)
    live = {(alert.scope, alert.subject): alert for alert in await alert_store.live(tx, kind=KIND)}
    for finding in found:
        subject = f"{finding.model}@{finding.version} {finding.feature}"
        alert = live.get((finding.scope, subject))
        shared = (finding.model, finding.version, finding.feature) in common
        drifted = standings[finding.cell].state == "drifted"
        wanted = drifted and (shared if finding.scope == FLEET else not shared)
        if wanted:
            await _raise(tx, rule, finding, subject, now)
        elif alert is not None:
            because = "the whole fleet drifts, see its alert" if drifted and shared else "back to the reference"
            await desk.clear(tx, alert, because=because, now=now)


def _common(rows: Sequence[tables.DriftState]) -> set[tuple[str, str, str]]:
    """Features that drift on every device that was judged, on two of them at least, and in the fleet's sum."""
    states: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    fleet = set()
    for row in rows:
        cell = (row.model, row.version, row.feature)
        if row.scope != FLEET and row.state != "collecting":
            states[cell].append(row.state)
        elif row.scope == FLEET and row.state == "drifted":
            fleet.add(cell)
    return {cell for cell, all_ in states.items() if cell in fleet and len(all_) > 1 and set(all_) == {"drifted"}}


async def _raise(tx: AsyncSession, rule: Rule, finding: Finding, subject: str, now: datetime) -> None:
    psi = max(0.0, finding.statistics.psi_corrected)
    severity = verdict.severity(rule, psi) or "low"
    where = "the whole fleet" if finding.scope == FLEET else finding.scope.removeprefix("device:")
    sentence = verdict.sentence(rule, finding.feature, finding.samples, finding.statistics)
    await desk.open_alert(
        tx,
        kind=KIND,
        scope=finding.scope,
        subject=subject,
        severity=severity,
        text=f"{finding.model} {finding.version} on {where}: {sentence}",
        body={
            "model": finding.model,
            "version": finding.version,
            "feature": finding.feature,
            "psi": round(psi, 4),
            "limit": rule.psi_threshold,
            "p": finding.statistics.p,
            "samples": finding.samples,
            "shift": round(finding.statistics.shift, 2),
        },
        now=now,
    )


async def forget_stale(tx: AsyncSession, serving: Mapping[str, Mapping[str, str]], now: datetime) -> None:
    """Verdicts and alerts on releases that no longer serve where they were seen."""
    rows = await store.states(tx)
    gone = {(row.scope, row.model, row.version) for row in rows if not _serves(row.scope, row, serving)}
    for scope, model, version in gone:
        await store.forget(tx, scope, model, version)
    for alert in await alert_store.live(tx, kind=KIND):
        release = (alert.scope, str(alert.body.get("model")), str(alert.body.get("version")))
        if release in gone:
            await desk.clear(tx, alert, because="this version no longer serves there", now=now)
    if gone:
        tx.expire_all()  # the rows are gone; nobody shall read them from memory


def _serves(scope: str, row: tables.DriftState, serving: Mapping[str, Mapping[str, str]]) -> bool:
    if scope == FLEET:
        return any(models.get(row.model, row.version) == row.version for models in serving.values())
    models = serving.get(scope.removeprefix("device:"))
    return models is not None and models.get(row.model, row.version) == row.version
