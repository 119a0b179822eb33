"""What a release is compared with in one scope: shown, pinned, learned anew from its own last days.

    the release's reference data  ──relearn──►  the sum of the scope's last days   (pinned: neither changes)

A choice for `fleet` holds for every scope without one of its own. The driver sees it at its next look.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.api.problems import ConflictError, NotFoundError
from fleet.settings import DriftSettings
from fleet.store import drift as drift_store
from fleet.store import sketches as store
from fleet.store.tables import BaselineChoice
from fleet.telemetry import baselines
from fleet.telemetry.board import Vector
from fleet.telemetry.finding import FLEET
from fleet.telemetry.layout import Layout
from fleet.telemetry.vectors import HOURS_A_DAY, Calendar, pack, unpack
from shared.clock import rfc3339


class BaselineUnknownError(NotFoundError):
    """The release is not there, or was published without reference data."""

    code = "E_BASELINE_UNKNOWN"
    default_remedy = "flotilla drift baseline list"


class BaselinePinnedError(ConflictError):
    """Somebody pinned it, so that it does not change."""

    code = "E_BASELINE_PINNED"
    default_remedy = "flotilla drift baseline pin MODEL@VERSION --off"


class BaselineSamplesError(ConflictError):
    """There is too little to learn from."""

    code = "E_BASELINE_SAMPLES"
    default_remedy = "wait for more telemetry, or take more days with --days"


@dataclass(frozen=True, slots=True)
class Subject:
    """One release in one scope."""

    scope: str
    model: str
    version: str


async def show(tx: AsyncSession, subject: Subject, settings: DriftSettings) -> dict[str, Any]:
    """The JSON form: per feature what it is compared with, and how much its ordinary days differ."""
    layout = await _layout(tx, subject)
    chosen = await store.choice(tx, subject.scope, subject.model, subject.version)
    inherited = await store.choice(tx, FLEET, subject.model, subject.version)
    effective = next((row for row in (chosen, inherited) if row is not None and row.vector is not None), None)
    learned = None if effective is None or effective.vector is None else unpack(effective.vector, layout.size)
    vector = layout.vector if learned is None else learned
    days = chosen.days if chosen is not None else await _first_days(tx, subject, settings)
    rows = await drift_store.states(tx, model=subject.model, scope=subject.scope)
    spreads = {row.feature: row.body.get("dispersion") for row in rows if row.version == subject.version}
    return {
        "scope": subject.scope,
        "model": subject.model,
        "version": subject.version,
        "source": "release" if learned is None else "learned",
        "learned_from": None if learned is None or effective is None else effective.scope,
        "pinned": chosen is not None and chosen.pinned,
        "chosen_by": None if chosen is None else chosen.chosen_by,
        "chosen_at": None if chosen is None else rfc3339(chosen.chosen_at),
        "ordinary_days": days,
        "features": [_feature(layout, name, vector, spreads.get(name)) for name in layout.names],
    }


def _feature(layout: Layout, name: str, vector: Vector, spread: Sequence[float] | None) -> dict[str, Any]:
    place, reference = layout.places[name], layout.references[name]
    return {
        "feature": name,
        "group": reference.group,
        "kind": reference.kind,
        "edges": list(reference.edges),
        "counts": vector[place].tolist(),
        "samples": int(vector[place].sum()),
        "missing": int(vector[place.stop]),
        "dispersion": None if spread is None else {"location": spread[0], "scale": spread[1], "shape": spread[2]},
    }


async def pin(
    tx: AsyncSession, subject: Subject, settings: DriftSettings, *, pinned: bool, by: str, now: datetime
) -> None:
    """Keep baseline and ordinary days as they are, or let them change again. Once more is harmless."""
    await _layout(tx, subject)
    chosen = await store.choice(tx, subject.scope, subject.model, subject.version)
    if chosen is None:
        days = await _first_days(tx, subject, settings)
        await _choose(tx, subject, None, days, pinned=pinned, by=by, now=now)
    elif chosen.pinned != pinned:
        await _choose(tx, subject, chosen.vector, chosen.days, pinned=pinned, by=by, now=now)


async def relearn(
    tx: AsyncSession, subject: Subject, settings: DriftSettings, *, days: int, by: str, now: datetime
) -> None:
    """Compare with the sum of the scope's last `days` from now on; these are its ordinary days as well.

    Raises:
        BaselineUnknownError: no such release, or none with reference data.
        BaselinePinnedError: it is pinned.
        BaselineSamplesError: no feature has enough samples in these days.
    """
    layout, calendar = await _layout(tx, subject), Calendar.of(settings.detection_window_days)
    chosen = await store.choice(tx, subject.scope, subject.model, subject.version)
    if chosen is not None and chosen.pinned:
        raise BaselinePinnedError(f"the baseline of {subject.model}@{subject.version} in {subject.scope} is pinned")
    since = calendar.begin((calendar.day(calendar.hour(now)) - days) * HOURS_A_DAY)
    found = await _days(tx, subject, layout, since)
    total = sum(found.values(), np.zeros(layout.size, dtype=np.int64))
    vector, enough = layout.vector.copy(), False
    for place in layout.places.values():
        if total[place].sum() >= settings.min_samples_for_detection:
            vector[place.start : place.stop + 1], enough = total[place.start : place.stop + 1], True
    if not enough:
        most = max((int(total[place].sum()) for place in layout.places.values()), default=0)
        raise BaselineSamplesError(
            f"{most} samples in the last {days} days of {subject.scope}; "
            f"{settings.min_samples_for_detection} are needed"
        )
    await _choose(tx, subject, pack(vector), [rfc3339(day) for day in sorted(found)], pinned=False, by=by, now=now)


async def _layout(tx: AsyncSession, subject: Subject) -> Layout:
    release = (subject.model, subject.version)
    references = baselines.references((await drift_store.baselines(tx, {release})).get(release, {}))
    if not references:
        raise BaselineUnknownError(f"there is no baseline of {subject.model}@{subject.version}")
    return Layout.of(references)


async def _choose(
    tx: AsyncSession,
    subject: Subject,
    vector: bytes | None,
    days: Sequence[str],
    *,
    pinned: bool,
    by: str,
    now: datetime,
) -> None:
    row = BaselineChoice(
        scope=subject.scope,
        model=subject.model,
        version=subject.version,
        vector=vector,
        days=list(days),
        pinned=pinned,
        chosen_by=by,
        chosen_at=now,
    )
    await store.choose(tx, row)


async def _first_days(tx: AsyncSession, subject: Subject, settings: DriftSettings) -> list[str]:
    """The ordinary days of a scope that nobody chose any for: its first ones."""
    devices = await _devices(tx, subject.scope)
    starts = {place.start for place, _ in await store.days(tx, subject.model, subject.version, devices=devices)}
    return [rfc3339(start) for start in sorted(starts)[: settings.baseline_window_days]]


async def _days(tx: AsyncSession, subject: Subject, layout: Layout, since: datetime) -> Mapping[datetime, Vector]:
    devices, found = await _devices(tx, subject.scope), dict[datetime, Vector]()
    for place, stored in await store.days(tx, subject.model, subject.version, since=since, devices=devices):
        vector = unpack(stored, layout.size)
        if vector is not None:
            found[place.start] = found[place.start] + vector if place.start in found else vector
    return found


async def _devices(tx: AsyncSession, scope: str) -> Collection[str]:
    kind, _, name = scope.partition(":")
    members = await store.members(tx)
    found = {
        device
        for device, (_, site, hardware) in members.items()
        if kind == FLEET or name == {"device": device, "site": site, "hardware": hardware}.get(kind)
    }
    if not found and kind != FLEET:
        raise BaselineUnknownError(
            f"there is no device in {scope}", remedy="device:NAME, site:NAME, hardware:NAME, fleet"
        )
    return found
