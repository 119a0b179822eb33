"""From rows to what `course` and `notices` decide on.

I/O: none.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts.channels import Channel
from fleet.alerts.course import Live
from fleet.alerts.matching import Matcher, Silence, Traits
from fleet.alerts.notices import Notice, Route
from fleet.alerts.states import State
from fleet.store import alerts, deliveries, silences, tables

Places: TypeAlias = Mapping[str, Mapping[str, str]]  # scope of a device -> its labels

_DEVICE: Final = "device:"
_FEW: Final = 500


async def live(tx: AsyncSession, *, open_before: datetime, silences: bool) -> list[Live]:
    """Every alert that may move; without silences few of many thousands do."""
    rows = await alerts.movable(tx, open_before=open_before, heard=silences)
    places = await _places(tx, {row.scope for row in rows})
    return [Live(row.id, State(row.state), row.since, _traits(row, places)) for row in rows]


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
    places = await _places(tx, {alert.scope for alert in found.values()})
    return [_notice(row, found[row.alert_id], places) for row in rows]


def _notice(row: tables.AlertNotice, alert: tables.Alert, places: Places) -> Notice:
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
        site=places.get(alert.scope, {}).get("site", ""),
        body=alert.body,
        silenced=alert.state == State.SILENCED,
        told=alert.told_at is not None,
    )


def _traits(alert: alerts.Movable, places: Places) -> Traits:
    return Traits(alert.kind, alert.scope, alert.subject, alert.severity, places.get(alert.scope, {}))


async def _places(tx: AsyncSession, scopes: Collection[str]) -> Places:
    """The labels of each device among `scopes`, with its site as one of them."""
    table = tables.Device
    query = select(table.id, table.site, table.labels)
    names = [scope.removeprefix(_DEVICE) for scope in scopes if scope.startswith(_DEVICE)]
    if len(names) <= _FEW:  # databases bound how many values one question may name
        query = query.where(table.id.in_(names))
    return {
        f"{_DEVICE}{name}": {**{key: str(value) for key, value in labels.items()}, **({"site": site} if site else {})}
        for name, site, labels in await tx.execute(query)
    }


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
