"""Who of the released waves is told now, and what each of the others waits for.

Nothing is ever dropped because of a limit: who may not be told yet stays queued, and says why. Places are short for
all rollouts together, and the line of a site is shared as well; the rate grows with what *succeeded*.

I/O: none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final

from fleet.rollouts.states import QUEUED, Evidence, Member, Rollout, SiteBudget, SiteLoad, State
from shared.messages import Phase

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_NO_BUDGET: Final = SiteBudget()
#: States in which a device may still be downloading.
_FETCHES: Final = frozenset({QUEUED, str(Phase.ANNOUNCED), str(Phase.VERIFIED), str(Phase.FETCHING)})


@dataclass(frozen=True, slots=True)
class Turns:
    """Devices to be told now, in order, and for the others of the released waves what they wait for."""

    tell: tuple[str, ...] = ()
    waits: Mapping[str, str] = field(default_factory=dict)


def turns(rollout: Rollout, evidence: Evidence, now: datetime) -> Turns:
    """Whose turn it is. One that is offline takes no place: its announcement waits for it."""
    members = evidence.members
    untold = [it for it in members if it.told_at is None and it.wave <= rollout.wave and _untold(it)]
    if not untold:
        return Turns()
    counters = _Counters.of(rollout, evidence, now)
    tell: list[str] = []
    waits: dict[str, str] = {}
    for member in sorted(untold, key=attrgetter("wave")):
        why = counters.why_not(member)
        if why is None:
            counters.take(member)
            tell.append(member.device)
        else:
            waits[member.device] = why
    return Turns(tuple(tell), waits)


def waits(rollout: Rollout, evidence: Evidence, now: datetime) -> Mapping[str, str]:
    """What each device that was not told yet waits for, in words."""
    untold = [member for member in evidence.members if _untold(member)]
    match rollout.state:
        case State.AWAITING_APPROVAL:
            return {member.device: "approval" for member in untold}
        case State.PAUSED:
            return {member.device: "the rollout to be resumed" for member in untold}
        case State.RUNNING:
            ahead = {it.device: it.held or f"wave {rollout.waves[it.wave].name}" for it in untold}
            return {**ahead, **turns(rollout, evidence, now).waits, **_for_the_switch(rollout, evidence)}
        case _:
            return {}


def at_work(rollout: Rollout, member: Member) -> bool:
    """It takes a place: told, online, and neither at its end nor waiting for the switch of all."""
    if member.told_at is None or not member.online or member.ended:
        return False
    with_all = member.switched_at is not None and member.switched_at != member.told_at
    return rollout.strategy != "blue-green" or not (member.staged or with_all)


def _untold(member: Member) -> bool:
    return member.told_at is None and member.state == QUEUED and member.active


def _for_the_switch(rollout: Rollout, evidence: Evidence) -> Mapping[str, str]:
    if not rollout.stages_first:
        return {}
    ready = sum(member.staged for member in evidence.members)
    text = f"the switch of all: {ready} of {len(evidence.members)} have it staged"
    return {member.device: text for member in evidence.members if member.staged}


def rate(rollout: Rollout, succeeded: int) -> float | None:
    """Devices that may be told a minute after so many successes; None: as many as there are places."""
    ramp = rollout.ramp
    if ramp is None:
        return None
    return ramp.per_minute * ramp.factor ** min(64, succeeded // ramp.every)


def _window(per_minute: float) -> timedelta:
    """A rate below one a minute is counted over the time that one device takes."""
    return _MINUTE if per_minute >= 1 else _MINUTE / per_minute


@dataclass
class _Counters:
    """What is taken already; counts down while devices are chosen."""

    rollout: Rollout
    busy: int
    limit: int | None
    told: int
    rate: float | None
    sites: dict[str, SiteLoad]

    @classmethod
    def of(cls, rollout: Rollout, evidence: Evidence, now: datetime) -> "_Counters":
        members = evidence.members
        per_minute, told = None, 0
        if rollout.ramp is not None:
            per_minute = rate(rollout, sum(member.forward == Phase.COMMITTED for member in members))
        if per_minute is not None:
            since = now - _window(per_minute)
            told = sum(member.told_at is not None and member.told_at > since for member in members)
        return cls(
            rollout=rollout,
            busy=evidence.elsewhere + sum([at_work(rollout, it) for it in members if it.told_at is not None]),
            limit=None if rollout.strategy == "all-at-once" else rollout.max_in_flight,
            told=told,
            rate=per_minute,
            sites=_loads(rollout, evidence, now),
        )

    def why_not(self, member: Member) -> str | None:
        """What the device waits for; None when it is its turn."""
        if member.held is not None:
            return member.held
        if self.limit is not None and member.online and self.busy >= self.limit:
            return f"a place: {self.busy} of {self.limit} devices are at work"
        if self.rate is not None and self.told >= max(1, int(self.rate)):
            return f"the rate: {self.rate:g} a minute now"
        return self._line(member.site)

    def _line(self, site: str) -> str | None:
        if self.rollout.site_budget == _NO_BUDGET:
            return None
        budget, load = self.rollout.site_budget, self.sites.get(site, SiteLoad())
        more = self.rollout.bytes_each
        name = f"site {site}" if site else "devices without a site"
        flying = budget.in_flight_bytes
        if flying is not None and load.in_flight_bytes and load.in_flight_bytes + more > flying:
            return f"site budget: {load.in_flight_bytes} of {flying} bytes in flight ({name})"
        hourly = budget.hourly_bytes
        if hourly is not None and load.hourly_bytes and load.hourly_bytes + more > hourly:
            return f"site budget: {load.hourly_bytes} of {hourly} bytes this hour ({name})"
        return None

    def take(self, member: Member) -> None:
        """It is told."""
        self.busy += member.online
        self.told += 1
        if self.rollout.site_budget == _NO_BUDGET:
            return
        load, more = self.sites.get(member.site, SiteLoad()), self.rollout.bytes_each
        self.sites[member.site] = SiteLoad(load.in_flight_bytes + more, load.hourly_bytes + more)


def _loads(rollout: Rollout, evidence: Evidence, now: datetime) -> dict[str, SiteLoad]:
    """What this rollout and the others draw at each site."""
    if rollout.site_budget == _NO_BUDGET:
        return {}
    found = dict(evidence.sites)
    for site, load in _own(rollout, evidence.members, now):
        before = found.get(site, SiteLoad())
        found[site] = SiteLoad(before.in_flight_bytes + load.in_flight_bytes, before.hourly_bytes + load.hourly_bytes)
    return found


def _own(rollout: Rollout, members: Iterable[Member], now: datetime) -> Iterable[tuple[str, SiteLoad]]:
    for member in members:
        if member.told_at is None:
            continue
        flies = member.recalled_at is None and member.state in _FETCHES
        left = rollout.bytes_each - min(rollout.bytes_each, member.fetched_bytes or 0)
        recent = member.told_at > now - _HOUR
        yield member.site, SiteLoad(left if flies else 0, rollout.bytes_each if recent else 0)
