"""The manager's side of a history, twice: the real engine over values in memory, and the real driver over the real
store. Both hear the same reports and must tell the same devices the same things.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import select

from agent.update.lifecycle import Draft
from fleet.hub import Hub
from fleet.rollouts import changing, engine, pacing, reading, saved
from fleet.rollouts.driver import JOIN_SECONDS, RolloutDriver
from fleet.rollouts.states import (
    QUEUED,
    TERMINAL,
    TIMED_OUT,
    Evidence,
    Member,
    Rollout,
    State,
)
from fleet.rollouts.targeting import joined
from fleet.schedules import timing
from fleet.schedules.precedence import rank
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from fleet.telemetry import heard
from shared.messages import UpdateReport
from shared.windows import Window
from tests.simulators.virtual_device import Activate, Order, VirtualDevice

T0 = datetime(2026, 1, 1, tzinfo=UTC)
Tell = Callable[[str, Order], None]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class VirtualManager(Protocol):
    """What a history asks of its manager. `told` gets every assignment that goes out."""

    async def open(
        self, rollouts: Sequence[tuple[Rollout, Mapping[str, int]]], devices: Sequence[VirtualDevice]
    ) -> None: ...
    async def enrol(self, device: VirtualDevice) -> None: ...
    async def hear(self, device: VirtualDevice, said: Sequence[Draft], now: float) -> None: ...
    async def advance(self, now: float) -> None: ...
    async def change(self, rollout: str, decide: changing.Change, now: float) -> None: ...
    async def look(self) -> Sequence[tuple[Rollout, Evidence]]: ...
    async def close(self) -> None: ...


class MemoryManager:
    """The real engine; rows are values."""

    def __init__(self, told: Tell) -> None:
        self._told = told
        self._rollouts: dict[str, Rollout] = {}
        self._members: dict[str, dict[str, Member]] = {}
        self._known: dict[str, VirtualDevice] = {}
        self._assigned: dict[str, int] = {}
        self._by: dict[tuple[str, str], int] = {}
        self._joined_at: float | None = None
        self._now = 0.0

    async def open(
        self, rollouts: Sequence[tuple[Rollout, Mapping[str, int]]], devices: Sequence[VirtualDevice]
    ) -> None:
        self._known = {device.id: device for device in devices}
        for rollout, wave_of in rollouts:
            self._rollouts[rollout.id] = rollout
            made = {name: self._member(self._known[name], wave) for name, wave in wave_of.items()}
            self._members[rollout.id] = _in_order(made)

    def _member(self, device: VirtualDevice, wave: int, now: float = 0.0) -> Member:
        return Member(
            device=device.id,
            wave=wave,
            since=at(now),
            site=device.site,
            hardware=device.hardware,
            previous=device.serving,
            serving=device.serving,
            online=device.online,
            seen_at=at(now),
        )

    async def enrol(self, device: VirtualDevice) -> None:
        self._known[device.id] = device

    async def hear(self, device: VirtualDevice, said: Sequence[Draft], now: float) -> None:
        for members in self._members.values():
            if (member := members.get(device.id)) is not None:
                seen = at(now) if device.online else member.seen_at
                members[device.id] = replace(member, online=device.online, serving=device.serving, seen_at=seen)
        for draft in said:
            member = self._members.get(draft.rollout or "", {}).get(device.id)
            if member is not None and draft.assignment >= self._by.get((draft.rollout or "", device.id), 0):
                self._members[draft.rollout or ""][device.id] = _heard(member, draft, now)

    async def advance(self, now: float) -> None:
        self._join(now)
        for rollout_id in self._in_order():
            await self.change(rollout_id, engine.step, now)

    def _in_order(self) -> list[str]:
        live = [it for it in self._rollouts.values() if it.state not in TERMINAL]
        return [it.id for it in sorted(live, key=lambda it: (-rank(it.priority), it.id))]

    async def change(self, rollout: str, decide: changing.Change, now: float) -> None:
        self._now = now
        evidence = self._evidence(rollout)
        step = decide(self._rollouts[rollout], evidence, at(now))
        self._rollouts[rollout] = step.rollout
        after = engine.apply(evidence, step.actions, at(now))
        after_all = (replace(member, held=None, closed=timedelta(0)) for member in after.members)
        self._members[rollout] = {member.device: member for member in after_all}
        for action in step.actions:
            self._pay(step.rollout, action, now)

    def _pay(self, rollout: Rollout, action: engine.Action, now: float) -> None:
        if isinstance(action, engine.Close):
            return
        members, name = self._members[rollout.id], action.device
        member = replace(members[name], owed=False, reason=None, detail=None)
        version = action.version if isinstance(action, engine.Recall) else rollout.version
        if isinstance(action, engine.Announce):
            serving = self._members[rollout.id][name].serving
            member = replace(member, previous=serving if serving != version else member.previous)
        if not isinstance(action, engine.Switch):
            member = replace(member, state=QUEUED, since=at(now), fetched_bytes=None, total_bytes=None)
        members[name] = member
        self._assigned[name] = self._assigned.get(name, 0) + 1
        self._by[rollout.id, name] = self._assigned[name]
        activate: Activate = "never" if isinstance(action, engine.CallOff) else "now"
        if isinstance(action, engine.Announce) and action.stage:
            activate = "later"
        window = None
        back = isinstance(action, engine.Recall | engine.CallOff)
        if rollout.window is not None and not back and self._known[name].waits_itself:
            window = self._window(rollout, name).model_dump(mode="json")
        self._told(name, Order(self._assigned[name], rollout.id, version, activate, window))

    def _window(self, rollout: Rollout, name: str) -> Window:
        if rollout.window is None:
            raise ValueError(f"{rollout.id} has no window")
        return timing.window_of(rollout.window, rollout.id, name, {timing.ZONE_LABEL: self._known[name].zone})

    def _placed(self, rollout: Rollout, member: Member, now: float) -> Member:
        """What `fleet.schedules.turns` does."""
        waits = self._known[member.device].waits_itself
        if rollout.window is None or member.ended or (waits and not member.touched):
            return member
        turn = timing.turn(
            self._window(rollout, member.device),
            waits_itself=waits, online=member.online, told_at=member.told_at, now=at(now),
        )  # fmt: skip
        return replace(member, held=None if member.touched else turn.held, closed=turn.closed)

    def _evidence(self, rollout: str) -> Evidence:
        elsewhere = sum(
            pacing.at_work(other, member) and member.recalled_at is None
            for key, other in self._rollouts.items()
            for member in self._members[key].values()
            if key != rollout and other.state not in TERMINAL
        )
        found = self._rollouts[rollout]
        members = tuple(self._placed(found, member, self._now) for member in self._members[rollout].values())
        return Evidence(members, elsewhere=elsewhere)

    def _join(self, now: float) -> None:
        if self._joined_at is not None and now - self._joined_at < JOIN_SECONDS:
            return
        self._joined_at = now
        for rollout_id in self._in_order():
            rollout, members = self._rollouts[rollout_id], self._members[rollout_id]
            busy = {
                name for key, other in self._members.items() for name in other
                if self._rollouts[key].state not in TERMINAL
            }  # fmt: skip
            if rollout.state not in (State.AWAITING_APPROVAL, State.RUNNING, State.PAUSED):
                continue
            known = len(members)
            for name, device in sorted(self._known.items()):
                fits = (
                    rollout.target is not None
                    and device.site == rollout.target.site
                    and device.serving != rollout.version
                )
                if fits and name not in members and name not in busy:
                    rollout, wave = joined(rollout, name)
                    members[name] = self._member(device, wave, now)
            self._rollouts[rollout_id] = rollout
            if len(members) > known:
                self._members[rollout_id] = _in_order(members)

    async def look(self) -> Sequence[tuple[Rollout, Evidence]]:
        return [(rollout, self._evidence(key)) for key, rollout in self._rollouts.items()]

    async def close(self) -> None:
        """Nothing is open."""


def _in_order(members: Mapping[str, Member]) -> dict[str, Member]:
    """As the store gives them."""
    return dict(sorted(members.items(), key=lambda item: (item[1].wave, item[0])))


def _heard(member: Member, said: Draft, now: float) -> Member:
    """What `fleet.telemetry.heard` does to the row."""
    changed = replace(
        member,
        fetched_bytes=member.fetched_bytes if said.fetched_bytes is None else said.fetched_bytes,
        total_bytes=member.total_bytes if said.total_bytes is None else said.total_bytes,
    )
    if member.state == TIMED_OUT and not said.phase.final:
        return changed
    since = member.since if member.state == said.phase else at(now)
    return replace(changed, state=said.phase.value, since=since, reason=said.reason, detail=said.detail)


@dataclass
class _Clock:
    seconds: float = 0.0

    def now(self) -> datetime:
        return at(self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class _Director:
    """Says what a signed assignment would say."""

    def assign(self, *, device: str, version: int, release: tables.Release, order: Any, **_: Any) -> str:
        window = order.terms.window
        said = {"number": version, "rollout": order.rollout, "version": release.version, "activate": order.activate}
        return json.dumps(said | {"window": None if window is None else window.model_dump(mode="json")})


@dataclass
class StoredManager:
    """The real driver over the real store; only signatures and the broker are left out."""

    told: Tell
    url: str
    clock: _Clock = field(default_factory=_Clock)
    director: Any = field(default_factory=_Director)
    hub: Hub = field(default_factory=Hub)
    settings: FleetSettings = field(default_factory=FleetSettings)
    checkpoint: Callable[[str], None] = lambda _: None
    sequence: int = 0

    def __post_init__(self) -> None:
        self.database = Database(self.url)
        self.announcer = self
        self.driver = RolloutDriver(self, checkpoint=lambda name: self.checkpoint(name))  # type: ignore[arg-type]

    async def announce(self, device_id: str) -> None:
        """In the place of the broker: the stored assignment, as it would be published."""
        async with self.database.read() as tx:
            row = await tx.get_one(tables.Device, device_id)
            said = json.loads(row.assigned or "{}")
        self.told(device_id, Order(**said))

    async def open(
        self, rollouts: Sequence[tuple[Rollout, Mapping[str, int]]], devices: Sequence[VirtualDevice]
    ) -> None:
        await self.database.open()
        versions = {rollout.version for rollout, _ in rollouts} | {"1.0.0"}
        async with self.database.write() as tx:
            for counter, version in enumerate(sorted(versions), start=1):
                tx.add(_release(version, counter))
            tx.add_all([_device(it, self.clock.now()) for it in devices])
            await tx.flush()
            for place, (rollout, wave_of) in enumerate(rollouts):
                tx.add(_row(rollout, at(0) + timedelta(microseconds=place)))
                await tx.flush()
                for name, wave in wave_of.items():
                    row = tables.Deployment(rollout_id=rollout.id, device_id=name, wave=wave, state=QUEUED, since=at(0))
                    row.previous = next(it.serving for it in devices if it.id == name)
                    tx.add(row)

    async def enrol(self, device: VirtualDevice) -> None:
        async with self.database.write() as tx:
            tx.add(_device(device, self.clock.now()))

    async def hear(self, device: VirtualDevice, said: Sequence[Draft], now: float) -> None:
        self.clock.seconds = now
        async with self.database.write() as tx:
            row = await tx.get_one(tables.Device, device.id)
            row.online, row.serving = device.online, {"digits": device.serving} if device.serving else {}
            row.seen_at = at(now) if device.online else row.seen_at
            for draft in said:
                self.sequence += 1
                report = UpdateReport(
                    device=device.id, stream="s", sequence=self.sequence, at=at(now), assignment=draft.assignment,
                    phase=draft.phase, model=draft.model, version=draft.version, rollout=draft.rollout,
                    reason=draft.reason, detail=draft.detail,
                )  # fmt: skip
                await heard.report(tx, report, now=at(now))

    async def advance(self, now: float) -> None:
        self.clock.seconds = now
        await self.driver.advance()

    async def change(self, rollout: str, decide: changing.Change, now: float) -> None:
        self.clock.seconds = now
        async with self.database.write() as tx:
            await changing.change(tx, rollout, decide, at(now))
        await self.driver.perform()

    async def look(self) -> Sequence[tuple[Rollout, Evidence]]:
        async with self.database.read() as tx:
            rows = (await tx.scalars(select(tables.Rollout).order_by(tables.Rollout.created_at))).all()
            return [(saved.from_json(row.body), await reading.evidence(tx, row, self.clock.now())) for row in rows]

    async def close(self) -> None:
        await self.database.close()


def _release(version: str, counter: int) -> tables.Release:
    return tables.Release(
        model="digits", version=version, counter=counter, manifest_digest=f"{counter:064d}", manifest=b"{}",
        escrow_key="", baseline={}, published_by="sim", published_at=T0,
    )  # fmt: skip


def _device(it: VirtualDevice, now: datetime) -> tables.Device:
    return tables.Device(
        id=it.id, name=it.id, site=it.site, hardware=it.hardware, labels={"timezone": it.zone}, sign_key=b"",
        box_key=b"", api_key_hash="", enrolled_at=T0, slots=[], serving={"digits": it.serving} if it.serving else {},
        online=it.online, seen_at=now, lifecycle="active", features=["windows"] if it.waits_itself else [],
    )  # fmt: skip


def _row(rollout: Rollout, now: datetime) -> tables.Rollout:
    return tables.Rollout(
        id=rollout.id, model=rollout.model, version=rollout.version, strategy=rollout.strategy,
        state=rollout.state.value, reason=rollout.reason, body=saved.to_json(rollout), created_by=rollout.author,
        created_at=now, updated_at=now, priority=rank(rollout.priority),
    )  # fmt: skip
