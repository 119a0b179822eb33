"""A request for a rollout: checked, resolved to devices and waves, shown as a plan, or started.

I/O: none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import hooks, saved, sizes, standing, targeting, waves
from fleet.rollouts.bodies import Body, GateBody, RampBody, ShadowBody, SiteBudgetBody, TargetBody
from fleet.rollouts.errors import (
    AlreadyThereError,
    NoDevicesError,
    OverlapError,
    ProvenBadError,
    ReleaseNotFoundError,
)
from fleet.rollouts.states import (
    QUEUED,
    Criterion,
    Effect,
    Limits,
    Ramp,
    Rollout,
    SiteBudget,
    State,
    Strategy,
    Target,
    Wave,
)
from fleet.schedules import preempting
from fleet.schedules.precedence import Priority, rank
from fleet.schedules.timing import Timetable
from fleet.settings import FleetSettings
from fleet.store import bad_pairs, events, tables
from fleet.store import rollouts as store
from shared.errors import BadInputError
from shared.identifiers import ModelName, Version
from shared.manifest import Manifest
from shared.shadow import Terms
from shared.windows import Hours

DEFAULT_BAKE_SECONDS: Final = 300.0
DEFAULT_WAVES: Final = ("5%", "25%", "50%", "100%")
_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"

Seconds = Annotated[float, Field(ge=0, le=30 * 86400)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Request(Body):
    """`POST /rollouts`."""

    model: ModelName
    version: Version
    target: Literal["all"] | TargetBody = "all"
    strategy: Strategy = "canary"
    waves: tuple[Annotated[str, Field(max_length=16)], ...] | None = None
    bake_seconds: Seconds = DEFAULT_BAKE_SECONDS
    batch_size: Annotated[int, Field(ge=1)] = 3
    delay_seconds: Seconds = 0.0
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    auto_rollback: bool | None = None
    on_failure: tuple[Effect, ...] | None = None
    require_approval: bool = False
    manual: bool = False
    stage_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    ramp: RampBody | None = None
    site_budget: SiteBudgetBody | None = None
    force: bool = False
    gate: GateBody = GateBody()
    window: Literal["settings"] | Hours | None = None  # devices swap inside it; None: at once
    priority: Priority = "normal"  # takes devices that were not told from rollouts of lower priority
    shadow: ShadowBody | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Request":
        if self.gate.min_shadow_agreement is not None and self.shadow is None:
            raise ValueError("gate.min_shadow_agreement needs a shadow: without one nothing is compared")
        if self.strategy == "rolling" and self.waves is not None:
            raise ValueError("a rolling rollout has batch_size, not waves")
        if self.strategy in ("blue-green", "all-at-once") and (self.waves is not None or self.manual):
            raise ValueError(f"a rollout of the kind {self.strategy} has one wave of everybody")
        if self.shadow is not None and self.strategy == "blue-green":
            raise ValueError("a blue-green rollout stages first and switches once: it has no shadow")
        if self.stage_ratio < 1 and self.strategy != "blue-green":
            raise ValueError("stage_ratio belongs to blue-green rollouts")
        return self


@dataclass(frozen=True, slots=True)
class Meant:
    """One device that the rollout will reach."""

    device: str
    wave: int
    hardware: str
    site: str


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
    members: tuple[Meant, ...]  # by wave
    excluded: Mapping[str, bad_pairs.BadPair]  # device -> proof that the release is bad on its class
    rivals: Mapping[str, Sequence[str]]  # rollout of lower priority -> devices that it has, too


async def make(
    tx: AsyncSession, request: Request, settings: FleetSettings, now: datetime, *, by: str = "", seed: str = ""
) -> Plan:
    """The plan for `request` against the devices of this transaction. The same `seed` gives the same id.

    Raises:
        ReleaseNotFoundError, WithdrawnError: nothing to roll out.
        NoDevicesError: nobody to roll out to.
        ProvenBadError: the release is proven bad on every hardware class that is left.
        WavesError: waves that lead nowhere.
        OverlapError: another rollout is at work on some of these devices.
    """
    key = (request.model, request.version)
    release = await tx.get(tables.Release, key, with_for_update={"read": True})  # retiring it waits for us
    if release is None:
        raise ReleaseNotFoundError(f"{request.model}@{request.version} was never published")
    standing.check(release)
    wanted = await targeting.devices(tx, target(request.target), request.model)
    lacking = [it for it in wanted if it.serving.get(request.model) != request.version]
    already = tuple(it.id for it in wanted if it.serving.get(request.model) == request.version)
    if not lacking:
        raise _nobody(request, already)
    bad = {} if request.force else await bad_pairs.of_release(tx, request.model, request.version)
    devices = {it.id: it for it in lacking if it.hardware not in bad}
    if not devices:
        raise ProvenBadError(_proven(request, bad))
    rivals = await _rivals(tx, devices, request)
    rollout_id = await _free_id(tx, (request.model, request.version, seed or now.isoformat()))
    classes = {it.id: it.hardware for it in devices.values()}
    order = waves.order(rollout_id, classes, classes_first=request.strategy == "canary")
    rollout = replace(
        _rollout(rollout_id, request, _waves(request, classes), settings, now), author=by, bytes_each=_bytes(release)
    )
    wave_of = waves.assign(order, rollout.waves)
    return Plan(
        rollout=rollout,
        order=order,
        wave_of=wave_of,
        previous={it.id: it.serving.get(request.model) for it in devices.values()},
        offline=tuple(sorted(it.id for it in devices.values() if not it.online)),
        already=already,
        bytes_each=rollout.bytes_each,
        bytes_by=await sizes.of_devices(tx, release, {it.id: it.serving.get(request.model) for it in devices.values()}),
        members=tuple(Meant(it, wave_of[it], devices[it].hardware, devices[it].site) for it in order),
        excluded={it.id: bad[it.hardware] for it in lacking if it.hardware in bad},
        rivals=rivals,
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
            reason=rollout.reason,
            body=saved.to_json(rollout),
            created_by=by,
            created_at=now,
            updated_at=now,
            priority=rank(rollout.priority),
        )
    )
    await tx.flush()
    for device in plan.order:
        row = tables.Deployment(rollout_id=rollout.id, device_id=device, wave=plan.wave_of[device], state=QUEUED)
        row.since, row.previous = now, plan.previous[device]
        tx.add(row)
    asks = ", and waits for approval" if rollout.state is State.AWAITING_APPROVAL else ""
    text = f"{rollout.model} {rollout.version} for {len(plan.order)} devices, started by {by}{asks}"
    await events.add(tx, kind="rollout", level="info", subject=rollout.id, rollout_id=rollout.id, text=text, now=now)
    await preempting.go_first(tx, rollout, plan.rivals, now)
    return rollout


def target(asked: Literal["all"] | TargetBody) -> Target:
    """As the rollout keeps it, so that late joiners are found."""
    if asked == "all":
        return Target()
    return Target(ids=asked.ids, labels=asked.labels or {}, site=asked.site, filter=asked.filter, channel=asked.channel)


def limits(body: GateBody, settings: FleetSettings) -> Limits:
    """The guard rails of the request over those of the settings.

    Raises:
        HookError: the webhook cannot be asked as the settings are.
    """
    base = Limits(
        max_error_ratio=settings.monitoring.error_rate_threshold,
        max_latency_ms=settings.monitoring.latency_threshold_ms,
        max_psi=settings.thresholds.statistical_drift.psi_threshold,
        max_degradation=settings.monitoring.performance_degradation_threshold,
        max_accuracy_loss=settings.thresholds.performance_drift.accuracy_threshold,
        min_labelled=settings.drift_detection.min_samples_for_detection,
    )
    asked = body.model_dump(exclude_none=True, exclude={"criteria", "webhook"})
    if body.webhook is not None:
        asked["webhook"] = hooks.checked(body.webhook.hook(), settings)
    if body.criteria is not None:
        asked["criteria"] = tuple(Criterion(it.kind, it.ratio, it.minimum) for it in body.criteria)
    return replace(base, **asked)


def _rollout(
    rollout_id: str, request: Request, made: tuple[Wave, ...], settings: FleetSettings, now: datetime
) -> Rollout:
    deployment = settings.deployment
    auto = deployment.auto_rollback_on_failure if request.auto_rollback is None else request.auto_rollback
    asks = request.require_approval or request.strategy == "all-at-once"
    return Rollout(
        id=rollout_id,
        model=request.model,
        version=request.version,
        strategy=request.strategy,
        waves=made,
        since=now,
        state=State.AWAITING_APPROVAL if asks else State.RUNNING,
        reason="waits for approval by another person" if asks else None,
        bake_seconds=request.delay_seconds if request.strategy == "rolling" else request.bake_seconds,
        timeout_seconds=request.timeout_seconds or _usual_timeout(request, settings),
        max_in_flight=deployment.max_concurrent_deployments,
        auto_rollback=auto,
        window=_window(request, settings),
        priority=request.priority,
        limits=limits(request.gate, settings),
        shadow=None if request.shadow is None else Terms(**request.shadow.model_dump()),
        target=target(request.target),
        force=request.force,
        ramp=None if request.ramp is None else Ramp(**request.ramp.model_dump()),
        site_budget=_budget(request, settings),
        needs_approval=asks,
        manual=request.manual,
        stage_ratio=request.stage_ratio,
        on_failure=request.on_failure,
        recalls_per_minute=deployment.rollback_devices_per_minute,
    )


def _budget(request: Request, settings: FleetSettings) -> SiteBudget:
    deployment, asked = settings.deployment, request.site_budget or SiteBudgetBody()
    return SiteBudget(
        in_flight_bytes=asked.in_flight_bytes or deployment.site_in_flight_bytes,
        hourly_bytes=asked.hourly_bytes or deployment.site_hourly_bytes,
    )


def _usual_timeout(request: Request, settings: FleetSettings) -> float:
    """Seconds for one device: to install the release, and to compare it where that is asked for."""
    comparing = request.shadow.seconds if request.shadow is not None else 0.0
    return settings.deployment.deployment_timeout_minutes * 60 + comparing


def _waves(request: Request, classes: Mapping[str, str]) -> tuple[Wave, ...]:
    match request.strategy:
        case "rolling":
            return waves.rolling(request.batch_size, len(classes))
        case "canary":
            return waves.canary(request.waves or DEFAULT_WAVES, len(classes), least=waves.least(classes))
        case "blue-green" | "all-at-once":
            return waves.canary(("100%",), len(classes))


def _proven(request: Request, bad: Mapping[str, bad_pairs.BadPair]) -> str:
    classes = "; ".join(f"{hardware}: {pair.detail} ({pair.rollout_id})" for hardware, pair in sorted(bad.items()))
    return f"{request.model}@{request.version} is proven bad on these devices: {classes}"


def _window(request: Request, settings: FleetSettings) -> Timetable | None:
    if request.window is None:
        return None
    own = settings.scheduling
    hours = own.hours if request.window == "settings" else request.window
    return Timetable(hours, own.timezone, int(own.jitter_minutes * 60))


def _nobody(request: Request, already: Sequence[str]) -> NoDevicesError:
    if already:
        found = f"all {len(already)} devices of the target serve {request.model}@{request.version} already"
        return AlreadyThereError(found)
    return NoDevicesError("the target matches no active device")


async def _rivals(
    tx: AsyncSession, devices: Mapping[str, tables.Device], request: Request
) -> Mapping[str, Sequence[str]]:
    """Rollouts of lower priority that are at work on some of these devices."""
    busy = await store.busy(tx, devices.keys())
    priorities = {row.id: saved.from_json(row.body).priority for row in await store.active(tx)} if busy else {}
    found: dict[str, list[str]] = {}
    for device, other in sorted((device, other) for device, others in busy.items() for other in others):
        if rank(priorities[other]) >= rank(request.priority):
            many = sum(other in others for others in busy.values())
            raise OverlapError(
                f"{other} is still at work on {many} of these devices, such as {device}",
                remedy=f"wait for it (flotilla rollout wait {other}), stop it (flotilla rollout abort {other}), "
                f"or go before it with a priority above {priorities[other]}",
            )
        found.setdefault(other, []).append(device)
    return found


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
