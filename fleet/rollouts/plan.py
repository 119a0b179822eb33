"""A request for a rollout: checked, resolved to devices and waves, shown as a plan, or started.

I/O: none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import saved, sizes, waves
from fleet.rollouts.errors import NoDevicesError, OverlapError, ReleaseNotFoundError, WithdrawnError
from fleet.rollouts.states import QUEUED, Criterion, Limits, Rollout, Wave
from fleet.settings import FleetSettings
from fleet.store import devices as device_store
from fleet.store import events, tables
from fleet.store import rollouts as store
from shared.errors import BadInputError
from shared.identifiers import DeviceId, ModelName, Version
from shared.manifest import Manifest

DEFAULT_BAKE_SECONDS: Final = 300.0
DEFAULT_WAVES: Final = ("5%", "25%", "50%", "100%")
_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"

Seconds = Annotated[float, Field(ge=0, le=30 * 86400)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TargetBody(Body):
    """Devices by id, or those that carry all of these labels."""

    ids: tuple[DeviceId, ...] | None = None
    labels: dict[str, str] | None = None
    site: str | None = None

    @model_validator(mode="after")
    def _something(self) -> "TargetBody":
        if self.ids is None and not self.labels and self.site is None:
            raise ValueError("name ids, labels or a site")
        return self


class CriterionBody(Body):
    """Stop when more than `ratio` of the devices that ended, ended like this."""

    kind: Literal["rolled-back", "refused", "failed", "timed-out", "cancelled", "any"]
    ratio: Ratio
    minimum: Annotated[int, Field(ge=1)] = 1


class GateBody(Body):
    """Guard rails; what is left out comes from the settings."""

    criteria: tuple[CriterionBody, ...] | None = None
    min_success_ratio: Ratio | None = None
    max_error_ratio: Ratio | None = None
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    min_requests: Annotated[int, Field(ge=1)] | None = None
    max_psi: Annotated[float, Field(gt=0)] | None = None
    max_restarts: Annotated[int, Field(ge=0)] | None = None
    silence_seconds: Annotated[float, Field(gt=0)] | None = None
    max_silent_ratio: Ratio | None = None
    require_evidence: bool | None = None


class Request(Body):
    """`POST /rollouts`."""

    model: ModelName
    version: Version
    target: Literal["all"] | TargetBody = "all"
    strategy: Literal["canary", "rolling"] = "canary"
    waves: tuple[Annotated[str, Field(max_length=16)], ...] | None = None
    bake_seconds: Seconds = DEFAULT_BAKE_SECONDS
    batch_size: Annotated[int, Field(ge=1)] = 3
    delay_seconds: Seconds = 0.0
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    auto_rollback: bool | None = None
    gate: GateBody = GateBody()

    @model_validator(mode="after")
    def _fits(self) -> "Request":
        if self.strategy == "rolling" and self.waves is not None:
            raise ValueError("a rolling rollout has batch_size, not waves")
        return self


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen. Nothing is stored yet."""

    rollout: Rollout
    order: tuple[str, ...]
    wave_of: Mapping[str, int]
    previous: Mapping[str, str | None]
    offline: tuple[str, ...]
    already: tuple[str, ...]  # devices of the target that serve this version; they are left out
    bytes_each: int  # of the full release
    bytes_by: Mapping[str, int]  # on the wire, by device: less where a delta leads from what it serves


async def make(tx: AsyncSession, request: Request, settings: FleetSettings, now: datetime) -> Plan:
    """The plan for `request` against the devices of this transaction.

    Raises:
        ReleaseNotFoundError, WithdrawnError: nothing to roll out.
        NoDevicesError: nobody to roll out to.
        WavesError: waves that lead nowhere.
        OverlapError: another rollout is at work on some of these devices.
    """
    release = await tx.get(tables.Release, (request.model, request.version))
    if release is None:
        raise ReleaseNotFoundError(f"{request.model}@{request.version} was never published")
    if release.state != "released":
        raise WithdrawnError(f"{request.model}@{request.version} is {release.state}")
    wanted = await targets(tx, request.target)
    devices = {it.id: it for it in wanted if it.serving.get(request.model) != request.version}
    already = tuple(it.id for it in wanted if it.id not in devices)
    if not devices:
        raise NoDevicesError(_nobody(request, already))
    await _check_overlap(tx, devices)
    rollout_id = await _free_id(tx, (request.model, request.version, now.isoformat()))
    order = waves.order(rollout_id, {it.id: it.hardware for it in devices.values()})
    rollout = _rollout(rollout_id, request, len(devices), settings, now)
    return Plan(
        rollout=rollout,
        order=order,
        wave_of=waves.assign(order, rollout.waves),
        previous={it.id: it.serving.get(request.model) for it in devices.values()},
        offline=tuple(sorted(it.id for it in devices.values() if not it.online)),
        already=already,
        bytes_each=_bytes(release),
        bytes_by=await sizes.of_devices(tx, release, {it.id: it.serving.get(request.model) for it in devices.values()}),
    )


async def start(tx: AsyncSession, plan: Plan, *, by: str, now: datetime) -> Rollout:
    """Store the planned rollout; the driver takes it from there."""
    rollout = plan.rollout
    tx.add(
        tables.Rollout(
            id=rollout.id,
            model=rollout.model,
            version=rollout.version,
            strategy=rollout.strategy,
            state=rollout.state.value,
            reason=None,
            body=saved.to_json(rollout),
            created_by=by,
            created_at=now,
            updated_at=now,
        )
    )
    await tx.flush()
    for device in plan.order:
        row = tables.Deployment(rollout_id=rollout.id, device_id=device, wave=plan.wave_of[device], state=QUEUED)
        row.since, row.previous = now, plan.previous[device]
        tx.add(row)
    text = f"{rollout.model} {rollout.version} for {len(plan.order)} devices, started by {by}"
    await events.add(tx, kind="rollout", level="info", subject=rollout.id, rollout_id=rollout.id, text=text, now=now)
    return rollout


async def targets(tx: AsyncSession, target: Literal["all"] | TargetBody) -> Sequence[tables.Device]:
    """The active devices that are meant.

    Raises:
        NoDevicesError: an id that no active device has.
    """
    found = await device_store.active(tx)
    if target == "all":
        return found
    if target.ids is not None:
        known = {device.id for device in found}
        if missing := [device for device in target.ids if device not in known]:
            raise NoDevicesError(f"no active device is called {', '.join(missing[:5])}")
        found = [device for device in found if device.id in set(target.ids)]
    labels = target.labels or {}
    return [
        device
        for device in found
        if all(device.labels.get(key) == value for key, value in labels.items()) and target.site in (None, device.site)
    ]


def limits(body: GateBody, settings: FleetSettings) -> Limits:
    """The guard rails of the request over those of the settings."""
    base = Limits(
        max_error_ratio=settings.monitoring.error_rate_threshold,
        max_latency_ms=settings.monitoring.latency_threshold_ms,
        max_psi=settings.thresholds.statistical_drift.psi_threshold,
    )
    asked = body.model_dump(exclude_none=True, exclude={"criteria"})
    if body.criteria is not None:
        asked["criteria"] = tuple(Criterion(it.kind, it.ratio, it.minimum) for it in body.criteria)
    return replace(base, **asked)


def _rollout(rollout_id: str, request: Request, devices: int, settings: FleetSettings, now: datetime) -> Rollout:
    auto = settings.deployment.auto_rollback_on_failure if request.auto_rollback is None else request.auto_rollback
    return Rollout(
        id=rollout_id,
        model=request.model,
        version=request.version,
        strategy=request.strategy,
        waves=_waves(request, devices),
        since=now,
        bake_seconds=request.bake_seconds if request.strategy == "canary" else request.delay_seconds,
        timeout_seconds=request.timeout_seconds or settings.deployment.deployment_timeout_minutes * 60,
        max_in_flight=settings.deployment.max_concurrent_deployments,
        auto_rollback=auto,
        limits=limits(request.gate, settings),
    )


def _waves(request: Request, devices: int) -> tuple[Wave, ...]:
    if request.strategy == "rolling":
        return waves.rolling(request.batch_size, devices)
    return waves.canary(request.waves or DEFAULT_WAVES, devices)


def _nobody(request: Request, already: Sequence[str]) -> str:
    if already:
        return f"all {len(already)} devices of the target serve {request.model}@{request.version} already"
    return "the target matches no active device"


async def _check_overlap(tx: AsyncSession, devices: Mapping[str, tables.Device]) -> None:
    if busy := await store.busy(tx, devices.keys()):
        device, other = min(busy.items())
        raise OverlapError(
            f"{other} is still at work on {len(busy)} of these devices, such as {device}",
            remedy=f"wait for it (flotilla rollout wait {other}) or stop it (flotilla rollout abort {other})",
        )


async def _free_id(tx: AsyncSession, said: Sequence[str]) -> str:
    """Short, and the same for the same request at the same instant."""
    for attempt in count():
        digest = hashlib.sha256("\0".join((*said, str(attempt))).encode()).digest()
        found = "ro-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:4])
        if await store.get(tx, found) is None:
            return found
    raise AssertionError


def _bytes(release: tables.Release) -> int:
    try:
        return Manifest.parse(release.manifest).sealed_bytes
    except BadInputError:
        return 0  # the device will refuse it with the reason; the plan only tells sizes
