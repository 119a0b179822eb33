"""How a device does: the worst thing that is true of it, and why.

I/O: none.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleet.dashboard import drawing, facts, series
from fleet.devices.liveness import Presence
from fleet.rollouts.states import STAYED
from shared.messages import Phase

#: Worst first: the order of the table, and the only words of a device's state.
ORDER: Final = ("crit", "warn", "off", "wait", "can", "ok")
#: State -> symbol (never colour alone) and the words in the key of the wall.
SYMBOL: Final = {"crit": "x", "warn": "tri", "off": "ring", "wait": "key", "can": "diamond", "ok": "check"}
KEY: Final = {
    "ok": "healthy",
    "can": "updating",
    "warn": "degraded",
    "crit": "alert",
    "off": "offline",
    "wait": "pending",
}
SILENCE_SECONDS: Final = 8 * 3600  # of the button
SEVERE: Final = frozenset({"high", "critical"})
_SEVERITY_ORDER: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3}
_BAD: Final = frozenset({Phase.REFUSED, Phase.FAILED, Phase.ROLLED_BACK, "timed-out"})
_GROWING: Final = 3  # a window that ends with the hour may be shorter than the two before it
_ALERT_WORD: Final = {"drift": "Drift alert", "security": "Security alert", "connectivity": "Silent"}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a device does: a state of `ORDER`, its word, and why if it is not well."""

    state: str
    word: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that somebody should look at."""

    id: str
    tone: str
    severity: str
    where: str
    text: str
    age: str
    acknowledged_by: str | None
    silenced: bool
    mark: str  # what is special about it: silenced, escalated
    silence: str  # the body of the request that silences it


def active(rollouts: Iterable[facts.Rollout]) -> list[facts.Rollout]:
    """Those that are not over."""
    return [rollout for rollout in rollouts if rollout.state not in facts.OVER]


def condition(device: facts.Device, found: facts.Fleet) -> Condition:
    """The worst thing that is true of `device`, and why."""
    if device.lifecycle == "pending":
        return Condition("wait", "Pending", f"flotilla device accept {device.id}")
    alert = _worst_alert(device, found.alerts)
    if alert and alert.severity in SEVERE:
        return Condition("crit", _ALERT_WORD.get(alert.kind, "Alert"), alert.text)
    presence = found.limits.patience.presence(online=device.online, seen_at=device.seen_at, now=found.now)
    if device.seen_at is None or presence is Presence.NEVER:
        return Condition("off", "Offline", "enrolled, never seen")
    silent = f"silent for {drawing.span((found.now - device.seen_at).total_seconds())}"
    if presence is Presence.OFFLINE:
        return Condition("off", "Offline", silent)
    if alert:
        return Condition("warn", "Degraded", alert.text)
    if presence is Presence.LATE:
        return Condition("warn", "Late", silent)
    return _condition_of_work(device, found)


def _condition_of_work(device: facts.Device, found: facts.Fleet) -> Condition:
    running = {rollout.id: rollout for rollout in active(found.rollouts)}
    for deployment in found.deployments:
        rollout = running.get(deployment.rollout)
        if deployment.device != device.id or rollout is None:
            continue
        if deployment.recalled:
            if deployment.state != Phase.COMMITTED and deployment.outcome not in STAYED:
                return Condition("can", "Updating", f"going back to {deployment.previous or 'nothing'}")
            continue
        if deployment.state in _BAD:
            why = deployment.reason or deployment.detail or ""
            return Condition("warn", "Degraded", f"{rollout.version} {deployment.state}{': ' if why else ''}{why}")
        if deployment.state not in ("queued", "waiting", Phase.COMMITTED, Phase.CANCELLED):
            return Condition("can", "Updating", f"{rollout.version} {phase_words(deployment)}")
    window = fresh(found.windows.get(device.id, ()), found.now)
    if window and window.requests and window.failed / window.requests > found.limits.error_ratio:
        return Condition("warn", "Degraded", f"{drawing.percent(window.failed / window.requests, 1)} of requests fail")
    if not device.serving:
        return Condition("ok", "Healthy", "no model yet")
    return Condition("ok", "Healthy")


def phase_words(deployment: facts.Deployment) -> str:
    """The phase that was reported, with the bytes that were reported."""
    if deployment.state == Phase.FETCHING and deployment.total_bytes and deployment.fetched_bytes is not None:
        return f"{deployment.state} {drawing.percent(deployment.fetched_bytes / deployment.total_bytes)}"
    return deployment.state


def _worst_alert(device: facts.Device, alerts: Iterable[facts.Alert]) -> facts.Alert | None:
    mine = (alert for alert in alerts if alert.scope == f"device:{device.id}" or _drifts_with_all(device, alert))
    return min(mine, key=lambda alert: _SEVERITY_ORDER.get(alert.severity, 9), default=None)


def _drifts_with_all(device: facts.Device, alert: facts.Alert) -> bool:
    """True when one alert of its fleet, site or hardware class stands for the device's own."""
    release, _, _ = alert.subject.partition(" ")
    serves = {f"{model}@{version}" for model, version in device.serving.items()}
    scopes = {"fleet", f"site:{device.site}", f"hardware:{device.hardware}"}
    return alert.scope in scopes and alert.kind == "drift" and release in serves


def fresh(windows: Sequence[facts.Window], now: datetime) -> facts.Window | None:
    """The newest window, if no later one should have come: each is at most twice as long as one before."""
    if not windows:
        return None
    newest, longest = windows[-1], max(window.length for window in list(windows)[-_GROWING:])
    return newest if now - newest.received_at <= 2 * longest + timedelta(seconds=series.SETTLE_SECONDS) else None


def open_alerts(alerts: Iterable[facts.Alert], now: datetime) -> tuple[OpenAlert, ...]:
    """Worst first, then newest; acknowledged and silenced ones last."""
    ordered = sorted(alerts, key=lambda one: one.opened_at, reverse=True)
    ordered.sort(key=lambda one: (one.state not in ("open", "escalated"), _SEVERITY_ORDER.get(one.severity, 9)))
    return tuple(
        OpenAlert(
            id=alert.id,
            tone="crit" if alert.severity in SEVERE else "warn",
            severity=alert.severity,
            where=alert.scope.removeprefix("device:").removeprefix("rollout:"),
            text=alert.text,
            age=drawing.ago((now - alert.opened_at).total_seconds()),
            acknowledged_by=(alert.acknowledged_by or "somebody") if alert.state == "acknowledged" else None,
            silenced=alert.state == "silenced",
            mark=alert.state if alert.state in ("silenced", "escalated") else "",
            silence=json.dumps({"alert": alert.id, "seconds": SILENCE_SECONDS, "comment": "from the dashboard"}),
        )
        for alert in ordered
    )
