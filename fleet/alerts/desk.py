"""Open, keep, acknowledge and resolve alerts; each change of note is an event, and what is to be told a notice.

The notice is saved in the transaction of the change; `fleet/alerts/driver.py` settles it.

I/O: none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.alerts import states
from fleet.alerts.states import AlertNotFoundError, Event, Severity, State, Told
from fleet.store import alerts as store
from fleet.store import events
from fleet.store.tables import Alert, AlertNotice

_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"  # nothing that reads like another

#: What others add to an alert's body, and stays when its numbers change: the file of its report.
_ADDED: Final = ("report",)


async def open_alert(
    tx: AsyncSession,
    *,
    kind: str,
    scope: str,
    subject: str,
    severity: Severity,
    text: str,
    body: Mapping[str, Any],
    now: datetime,
) -> Alert:
    """The one live alert of (kind, scope, subject), new or brought up to date.

    An event is written when it opens and when it becomes graver; an acknowledged one that becomes graver opens again.
    """
    found = await store.live(tx, kind=kind, scope=scope, subject=subject[:160])
    if not found:
        return await _opened(tx, kind, scope, subject[:160], severity, text, body, now)
    alert = found[0]
    alert.text, alert.updated_at = text, now
    alert.body = {**{key: alert.body[key] for key in _ADDED if key in alert.body}, **body}
    if states.graver(severity, alert.severity):
        alert.severity = severity
        _move(alert, Event.WORSEN, now)
        _notice(tx, alert, "worsened", now)
        await _tell(tx, alert, _level(severity), f"{alert.id} is {severity} now: {text}", now)
    return alert


async def acknowledge(tx: AsyncSession, alert_id: str, *, by: str, note: str | None, now: datetime) -> Alert:
    """Somebody looks after it. Once more is harmless.

    Raises:
        AlertNotFoundError: no such alert.
        AlertStateError: it is resolved.
    """
    alert = await _get(tx, alert_id)
    before = alert.state
    _move(alert, Event.ACK, now)
    alert.acknowledged_by, alert.note, alert.updated_at = by, note or alert.note, now
    if before != alert.state:
        await _tell(tx, alert, "info", f"{alert.id} acknowledged by {by}" + (f": {note}" if note else ""), now)
    return alert


async def resolve(tx: AsyncSession, alert_id: str, *, by: str, note: str | None, now: datetime) -> Alert:
    """It is over. If its cause goes on, a new alert opens.

    Raises:
        AlertNotFoundError: no such alert.
        AlertStateError: it is resolved already.
    """
    alert = await _get(tx, alert_id)
    await _resolved(tx, alert, f"by {by}" + (f": {note}" if note else ""), note, now)
    return alert


async def clear(tx: AsyncSession, alert: Alert, *, because: str, now: datetime) -> None:
    """The cause is gone, or the alert stands in another one."""
    await _resolved(tx, alert, because, because, now)


async def take_course(tx: AsyncSession, alert: Alert, event: Event, *, because: str, now: datetime) -> None:
    """Silence, unsilence or escalate an alert, as `fleet/alerts/course.py` decided.

    Raises:
        AlertStateError: the table has no such move.
    """
    _move(alert, event, now)
    alert.updated_at = now
    if event is Event.ESCALATE:
        _notice(tx, alert, "escalated", now)
    elif event is Event.UNSILENCE:
        _notice(tx, alert, "opened", now)
    word = {Event.SILENCE: "silenced", Event.UNSILENCE: "heard again", Event.ESCALATE: "escalated"}[event]
    level: events.Level = "warn" if event is Event.ESCALATE else "info"
    await _tell(tx, alert, level, f"{alert.id} {word}: {because}", now)


async def _opened(
    tx: AsyncSession,
    kind: str,
    scope: str,
    subject: str,
    severity: Severity,
    text: str,
    body: Mapping[str, Any],
    now: datetime,
) -> Alert:
    alert = Alert(
        id=await _free_id(tx, (kind, scope, subject, now.isoformat())),
        kind=kind,
        scope=scope,
        subject=subject,
        severity=severity,
        state=State.OPEN.value,
        text=text,
        body=dict(body),
        opened_at=now,
        updated_at=now,
        since=now,
    )
    tx.add(alert)
    await tx.flush()  # the notice refers to it
    _notice(tx, alert, "opened", now)
    await _tell(tx, alert, _level(severity), text, now)
    return alert


async def _free_id(tx: AsyncSession, said: Sequence[str]) -> str:
    """Short, and the same for the same words, so that a replay makes the same alert."""
    for attempt in count():
        digest = hashlib.sha256("\0".join((*said, str(attempt))).encode()).digest()
        found = "al-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:5])
        if await store.get(tx, found) is None:
            return found
    raise AssertionError


async def _get(tx: AsyncSession, alert_id: str) -> Alert:
    alert = await store.get(tx, alert_id)
    if alert is None:
        raise AlertNotFoundError(f"there is no alert {alert_id!r}")
    return alert


async def _resolved(tx: AsyncSession, alert: Alert, how: str, note: str | None, now: datetime) -> None:
    _move(alert, Event.RESOLVE, now)
    _notice(tx, alert, "resolved", now)
    alert.resolved_at, alert.updated_at, alert.note = now, now, note or alert.note
    await _tell(tx, alert, "ok", f"{alert.id} resolved, {how}", now)


def _move(alert: Alert, event: Event, now: datetime) -> None:
    after = states.advance(State(alert.state), event)
    if after != alert.state:
        alert.state, alert.since = after.value, now


def _notice(tx: AsyncSession, alert: Alert, event: Told, now: datetime) -> None:
    tx.add(AlertNotice(alert_id=alert.id, event=event, severity=alert.severity, text=alert.text, at=now))


async def _tell(tx: AsyncSession, alert: Alert, level: events.Level, text: str, now: datetime) -> None:
    await events.add(tx, kind="alert", level=level, subject=alert.id, text=text, now=now)


def _level(severity: Severity) -> events.Level:
    return "crit" if severity in ("high", "critical") else "warn"
