"""From rows to what `course` and `notices` decide on.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts.channels import Channel
from fleet.alerts.course import Live
from fleet.alerts.matching import Matcher, Silence, Traits
from fleet.alerts.notices import Notice, Route
from fleet.alerts.states import State
from fleet.store import alerts, deliveries, silences, tables


async def live(tx: AsyncSession) -> list[Live]:
    """Every alert that is not over."""
    rows = await alerts.all_live(tx)
    devices = await _devices(tx, rows)
    return [Live(row.id, State(row.state), row.since or row.opened_at, traits(row, devices)) for row in rows]


async def valid_silences(tx: AsyncSession, now: datetime) -> list[Silence]:
    """Silences that hold at `now`. One of another form (a newer version wrote it) silences nothing."""
    found = []
    for row in await silences.valid(tx, now):
        try:
            found.append(Silence(row.id, Matcher.model_validate(row.matcher), row.until))
        except ValidationError:
            continue
    return found


async def notices(tx: AsyncSession) -> list[Notice]:
    """What is to be told, with what is true of the alerts now."""
    rows = await deliveries.unsettled(tx)
    query = select(tables.Alert).where(tables.Alert.id.in_({row.alert_id for row in rows}))
    found = {alert.id: alert for alert in (await tx.scalars(query)).all()}
    devices = await _devices(tx, list(found.values()))
    return [_notice(row, found[row.alert_id], devices) for row in rows]


def _notice(row: tables.AlertNotice, alert: tables.Alert, devices: Mapping[str, tables.Device]) -> Notice:
    return Notice(
        id=row.id,
        alert=alert.id,
        event=row.event,  # type: ignore[arg-type]  # the desk wrote it
        severity=row.severity,
        text=row.text,
        at=row.at,
        kind=alert.kind,
        scope=alert.scope,
        subject=alert.subject,
        site=traits(alert, devices).labels.get("site", ""),
        body=alert.body,
        silenced=alert.state == State.SILENCED,
        told=alert.told_at is not None,
    )


def traits(alert: tables.Alert, devices: Mapping[str, tables.Device]) -> Traits:
    """What silences look at."""
    device = devices.get(_device(alert))
    labels = {key: str(value) for key, value in device.labels.items()} if device is not None else {}
    if device is not None and device.site:
        labels["site"] = device.site
    return Traits(alert.kind, alert.scope, alert.subject, alert.severity, labels)


def _device(alert: tables.Alert) -> str:
    return alert.scope.removeprefix("device:") if alert.scope.startswith("device:") else ""


async def _devices(tx: AsyncSession, rows: Sequence[tables.Alert]) -> dict[str, tables.Device]:
    names = {name for row in rows if (name := _device(row))}
    found = await tx.scalars(select(tables.Device).where(tables.Device.id.in_(names)))
    return {device.id: device for device in found.all()}


def routes(
    channels: Mapping[str, Channel],
    notified: Sequence[str],
    *,
    retraining: bool,
    failing: Mapping[str, tables.ChannelState],
    waiting: Sequence[tables.Delivery],
) -> list[Route]:
    """What each channel wants to hear; `notified` are those that alerts are told to."""
    return [
        Route(
            channel=name,
            min_severity=settings.min_severity,
            events=frozenset(settings.events),
            notified=name in notified,
            retraining=retraining and settings.retraining,
            joins=_joins(name, failing, waiting),
        )
        for name, settings in channels.items()
    ]


def _joins(name: str, failing: Mapping[str, tables.ChannelState], waiting: Sequence[tables.Delivery]) -> str | None:
    """The untried message of a channel that fails."""
    if name not in failing or not failing[name].failures:
        return None
    untried = (row.id for row in waiting if row.channel == name and not row.attempts and row.purpose == "notification")
    return next(untried, None)
