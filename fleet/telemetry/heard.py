"""What one message of a device changes in the database: its row, its deployment, the activity feed.

Text from devices is cut to what tables and pages can hold; templates escape it.

I/O: none.
"""

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts.desk import open_alert
from fleet.store import events
from fleet.store.tables import Deployment, Device, Stream
from shared.messages import DeviceState, Phase, TelemetryWindow, UpdateReport

MAX_SLOTS: Final = 64
MAX_MODELS: Final = 32
MAX_FEATURES: Final = 32

_LEVELS: Final[dict[Phase, events.Level]] = {
    Phase.COMMITTED: "ok",
    Phase.REFUSED: "crit",
    Phase.FAILED: "crit",
    Phase.ROLLED_BACK: "crit",
    Phase.CANCELLED: "warn",
}
#: Refusals that mean somebody tampers, or that the path to the device damages bytes.
SECURITY_REASONS: Final = frozenset({"E_SIGNATURE", "E_REPLAYED", "E_WRONG_DEVICE", "E_CHUNK_DAMAGED"})


async def state(tx: AsyncSession, device: Device, said: DeviceState, *, retained: bool, now: datetime) -> bool:
    """Take over what a device says of itself; True if it shows. A retained word is not a sign of life now."""
    before = (device.online, device.boot, device.slots, device.serving, device.agent_version)
    if said.online:
        device.boot = said.boot[:64]
        device.agent_version = said.agent_version[:32]
        device.hardware = said.hardware[:64] or device.hardware
        device.features = sorted({feature[:32] for feature in said.features})[:MAX_FEATURES]
        device.slots = [slot.model_dump(mode="json", exclude_none=True) for slot in said.slots[:MAX_SLOTS]]
        device.serving = {model[:64]: version[:64] for model, version in list(said.serving.items())[:MAX_MODELS]}
    if not retained or device.seen_at is None:
        device.seen_at = now
    await _connectivity(tx, device, online=said.online, now=now)
    return before != (device.online, device.boot, device.slots, device.serving, device.agent_version)


async def sign_of_life(tx: AsyncSession, device: Device, *, now: datetime) -> bool:
    """The device said something; True if it was thought to be away."""
    device.seen_at = now
    return await _connectivity(tx, device, online=True, now=now)


async def _connectivity(tx: AsyncSession, device: Device, *, online: bool, now: datetime) -> bool:
    if device.online == online:
        return False
    device.online = online
    text = f"{device.id} is {'online' if online else 'offline'}"
    level: events.Level = "ok" if online else "warn"
    await events.add(tx, kind="device", level=level, subject=device.id, text=text, now=now)
    return True


async def report(tx: AsyncSession, said: UpdateReport, *, now: datetime) -> None:
    """Take over one phase of an update into its deployment and the feed."""
    deployment = await tx.get(Deployment, (said.rollout, said.device)) if said.rollout else None
    progress = deployment is not None and deployment.state == said.phase
    if deployment is not None and said.assignment >= deployment.assignment:
        _advance(deployment, said, now)
    if not progress:
        await _line(tx, said, deployment, now)
    if said.reason in SECURITY_REASONS and said.phase.final:
        await _alarm(tx, said, now)


async def shed(tx: AsyncSession, said: TelemetryWindow, *, now: datetime) -> None:
    """Take over how much telemetry the device threw away for want of room; more than before is news."""
    stream = await tx.get(Stream, (said.device, said.stream, "telemetry"))
    if stream is None or said.shed <= stream.shed:
        return
    more, stream.shed = said.shed - stream.shed, said.shed
    text = f"{said.device} threw away {more} telemetry windows, the oldest, because its outbox was full"
    await events.add(tx, kind="device", level="warn", subject=said.device, text=text, now=now)


def _advance(deployment: Deployment, said: UpdateReport, now: datetime) -> None:
    if said.fetched_bytes is not None:
        deployment.fetched_bytes = said.fetched_bytes
    if said.total_bytes is not None:
        deployment.total_bytes = said.total_bytes
    if said.sources is not None:
        deployment.sources = dict(said.sources)
    if said.shadow is not None:
        deployment.shadow = said.shadow.model_dump(mode="json")
    if deployment.state == "timed-out" and not said.phase.final:
        return  # it was given up; only how it ended is news
    if deployment.state != said.phase:
        deployment.state, deployment.since = said.phase.value, now
    deployment.reason = said.reason[:64] if said.reason else None
    deployment.detail = said.detail[:500] if said.detail else None


async def _line(tx: AsyncSession, said: UpdateReport, deployment: Deployment | None, now: datetime) -> None:
    release = f"{said.model} {said.version}" if said.model else f"assignment {said.assignment}"
    why = f" ({said.reason})" if said.reason else ""
    detail = f": {said.detail[:200]}" if said.detail and said.phase.final and said.phase is not Phase.COMMITTED else ""
    await events.add(
        tx,
        kind="deployment",
        level=_LEVELS.get(said.phase, "info"),
        subject=said.device,
        text=f"{said.device}: {release} {said.phase}{why}{detail}",
        rollout_id=deployment.rollout_id if deployment is not None else None,
        now=now,
    )


async def _alarm(tx: AsyncSession, said: UpdateReport, now: datetime) -> None:
    release = f"{said.model}@{said.version}" if said.model else f"assignment {said.assignment}"
    await open_alert(
        tx,
        kind="security",
        scope=f"device:{said.device}",
        subject=f"{release} {said.reason}"[:160],
        severity="high",
        text=f"{said.device} refused {release}: {said.reason}",
        body={"device": said.device, "reason": said.reason, "detail": (said.detail or "")[:500]},
        now=now,
    )
