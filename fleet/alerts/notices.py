"""From what is to be told to who is owed which message: grouped, filtered, once for each channel.

    notices --quiet ones drop out--> groups by cause --each channel's filter--> Owed
    drift or performance opens --auto_trigger_retraining--> Owed to the channels for retraining, once for each alert

I/O: none.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from fleet.alerts.states import Told, at_least
from shared.clock import rfc3339

Purpose = Literal["notification", "retraining"]

RETRAINED: Final = frozenset({"drift", "performance"})
MAX_ITEMS: Final = 100  # alerts of one message; the rest is counted


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell, with what is true of its alert now."""

    id: int
    alert: str
    event: Told
    severity: str
    text: str
    at: datetime
    kind: str
    scope: str
    subject: str
    site: str
    body: Mapping[str, Any]
    silenced: bool
    told: bool  # somebody was told of this alert before

    @property
    def group(self) -> str:
        """Kind, model and version (or rollout), site: what goes out together."""
        model = self.body.get("model")
        what = self.body.get("rollout") or (f"{model}@{self.body.get('version', '')}" if model else "-")
        return f"{self.kind}/{what}/{self.site or '-'}"[:255]


@dataclass(frozen=True, slots=True)
class Route:
    """What a channel wants to hear."""

    channel: str
    min_severity: str
    events: frozenset[str]
    notified: bool  # it is among `alerts.notification_channels`
    retraining: bool
    joins: str | None = None  # a message that still waits there, because the channel fails: more is added to it

    def wants(self, notice: Notice) -> bool:
        """True when this notice is told here."""
        return self.notified and notice.event in self.events and at_least(notice.severity, self.min_severity)


@dataclass(frozen=True, slots=True)
class Owed:
    """One message for one channel. `joins` names the waiting message that takes it in."""

    id: str
    channel: str
    purpose: Purpose
    group: str
    body: dict[str, Any]
    joins: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What was decided: these notices are done, these messages owed, of these alerts somebody is told."""

    notices: tuple[int, ...] = ()
    owed: tuple[Owed, ...] = ()
    told: frozenset[str] = field(default=frozenset())


def settle(
    notices: Sequence[Notice], routes: Sequence[Route], now: datetime, *, wait: timedelta, window: timedelta
) -> Settled:
    """Decide all groups that have waited long enough; `window` is what a drift verdict looks back on."""
    groups: dict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        groups[notice.group].append(notice)
    due = {key: group for key, group in groups.items() if now - min(one.at for one in group) >= wait}
    owed: list[Owed] = []
    told: set[str] = set()
    for key, group in due.items():
        heard = _newest(group)
        for route in routes:
            fitting = [notice for notice in heard if route.wants(notice)]
            if fitting:
                owed.append(_message(route, key, fitting))
                told |= {notice.alert for notice in fitting}
            if route.retraining:
                owed += (_request(route, notice, window) for notice in group if _retrains(notice))
    done = tuple(notice.id for group in due.values() for notice in group)
    return Settled(done, tuple({one.id: one for one in owed}.values()), frozenset(told))


def _newest(group: Iterable[Notice]) -> list[Notice]:
    """The last word on each alert; none on silenced ones, nor on those that were over before anybody was told."""
    last = {notice.alert: notice for notice in sorted(group, key=lambda notice: notice.id)}
    heard = [one for one in last.values() if not one.silenced and (one.event != "resolved" or one.told)]
    return [replace(one, event="opened") if one.event == "worsened" and not one.told else one for one in heard]


def _retrains(notice: Notice) -> bool:
    return notice.kind in RETRAINED and notice.event == "opened" and not notice.silenced and _of_a_model(notice.body)


def _of_a_model(body: Mapping[str, Any]) -> bool:
    """Requests that fail are no matter of training; such alerts say `retraining: false`."""
    return "model" in body and body.get("retraining", True) is not False


def _message(route: Route, group: str, notices: Sequence[Notice]) -> Owed:
    body = merged({}, [_item(notice) for notice in notices])
    name = _id(route.channel, "notification", *(str(notice.id) for notice in notices))
    return Owed(name, route.channel, "notification", group, body, route.joins)


def merged(body: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a message with more alerts; of each alert the last word, and no more than `MAX_ITEMS`."""
    all_ = {item["alert"]: item for item in [*body.get("items", ()), *items]}
    kept = list(all_.values())[:MAX_ITEMS]
    return {"items": kept, "more": body.get("more", 0) + len(all_) - len(kept)}


def _item(notice: Notice) -> dict[str, Any]:
    return {
        "alert": notice.alert,
        "event": notice.event,
        "kind": notice.kind,
        "scope": notice.scope,
        "subject": notice.subject,
        "site": notice.site,
        "severity": notice.severity,
        "text": notice.text,
        "at": rfc3339(notice.at),
        "evidence": {key: value for key, value in notice.body.items() if not _endless(value)},
    }


def _request(route: Route, notice: Notice, window: timedelta) -> Owed:
    """A retraining request. Its id knows only alert and channel, so that an alert never asks twice."""
    said = notice.body
    features = said.get("features") or ([said["feature"]] if "feature" in said else [])
    body = {
        "alert": notice.alert,
        "kind": notice.kind,
        "scope": notice.scope,
        "severity": notice.severity,
        "text": notice.text,
        "model": said["model"],
        "version": said.get("version"),
        "window": said.get("window") or {"from": rfc3339(notice.at - window), "to": rfc3339(notice.at)},
        "features": list(features),
        "evidence": dict(_numbers(said)),
    }
    return Owed(_id(route.channel, "retraining", notice.alert), route.channel, "retraining", notice.group, body)


def _numbers(said: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in said.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not _endless(value):
            yield key, value


def _endless(value: object) -> bool:
    """NaN and infinity: JSON has no words for them."""
    return isinstance(value, float) and not math.isfinite(value)


def _id(*words: str) -> str:
    """The same for the same words: deciding twice owes once."""
    return "dl-" + hashlib.sha256("\0".join(words).encode()).hexdigest()[:20]
