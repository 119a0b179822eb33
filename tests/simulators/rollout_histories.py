"""A day of a small fleet under rollouts, faults and people, by chance alone: the same seed is the same day.

seed -> devices, rollouts, faults, what people do -> events on a virtual clock -> a log, and what must always hold
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from fleet.rollouts import changing, pacing, waves
from fleet.rollouts.errors import OwnApprovalError, RolloutStateError
from fleet.rollouts.progress import shown
from fleet.rollouts.states import (
    ALL_BACK,
    ENDED,
    QUEUED,
    TERMINAL,
    Criterion,
    Effect,
    Evidence,
    Limits,
    Member,
    Ramp,
    Rollout,
    State,
    Strategy,
    Target,
)
from fleet.schedules.timing import ZONE_LABEL, Timetable, window_of
from shared.windows import Hours, is_open
from tests.simulators.virtual_device import TEMPERS, Order, VirtualDevice
from tests.simulators.virtual_manager import MemoryManager, Tell, VirtualManager, at

DAY: Final = 86400.0
TICK: Final = 120.0
#: From then on nobody does anything by hand any more, and what waits for people is let go.
EVENING: Final = 72000.0
ZONES: Final = ("UTC", "Europe/Berlin", "America/St_Johns")
STRATEGIES: Final[tuple[Strategy, ...]] = ("canary", "canary", "rolling", "blue-green", "all-at-once")


@dataclass
class History:
    """One day. `play` it, then look at `log` and `ends`."""

    seed: int
    make: Callable[[Tell], VirtualManager] = MemoryManager
    log: list[str] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.manager = self.make(self._told)
        self.now = 0.0
        self._ticking = True
        self._told_orders: dict[tuple[str, int], Order] = {}
        self._done: set[str] = set()
        self._working: dict[str, int] = {}  # device -> number of the effect that it is at
        self._waiting: set[str] = set()  # of these: for their window
        self._heap: list[tuple[float, int, str, str]] = []
        self._number = self._effects = 0
        self.devices = {it.id: it for it in self._fleet()}
        self.rollouts = [self._rollout(number, site) for number, site in enumerate(("gate", "hall"))]
        self._orders: Counter[tuple[str, str, str, str]] = Counter()
        self._sizes: dict[str, tuple[int, ...]] = {}

    # --- what the seed makes -----------------------------------------------------------------------------------

    def _fleet(self) -> list[VirtualDevice]:
        size = self.chance.randint(3, 12)
        bad = frozenset({"2.0.0"}) if self.chance.random() < 0.25 else frozenset[str]()
        bad_class = self.chance.choice(("nano", "orin"))
        return [self._device(f"cam-{number:02}", bad, bad_class) for number in range(size)]

    def _device(self, name: str, bad: frozenset[str], bad_class: str) -> VirtualDevice:
        hardware = self.chance.choice(("nano", "nano", "orin"))
        return VirtualDevice(
            id=name,
            hardware=hardware,
            site=self.chance.choice(("gate", "gate", "hall")),
            temper=self.chance.choice(TEMPERS),
            chance=Random(f"{self.seed} {name}"),
            good="1.0.0" if self.chance.random() < 0.9 else None,
            bad_versions=bad if hardware == bad_class else frozenset(),
            zone=self.chance.choice(ZONES),
            waits_itself=self.chance.random() < 0.8,
        )

    def _rollout(self, number: int, site: str) -> tuple[Rollout, dict[str, int]]:
        chance, name = self.chance, f"ro-{number}"
        classes = {it.id: it.hardware for it in self.devices.values() if it.site == site}
        strategy = chance.choice(STRATEGIES)
        made = waves.canary(("100%",), len(classes)) if classes else ()
        if classes and strategy == "canary":
            made = waves.canary(
                chance.choice((("1", "50%", "100%"), ("10%", "100%"))), len(classes), least=waves.least(classes)
            )
        elif classes and strategy == "rolling":
            made = waves.rolling(chance.randint(1, 4), len(classes))
        asks = strategy == "all-at-once" or chance.random() < 0.1
        loose = Limits(criteria=(Criterion("any", 0.5, 4),), min_success_ratio=0.2, silence_seconds=4 * 3600)
        rollout = Rollout(
            id=name,
            model="digits",
            version="2.0.0",
            strategy=strategy,
            waves=made,
            since=at(0),
            state=State.AWAITING_APPROVAL if asks else State.RUNNING,
            bake_seconds=chance.choice((0.0, 300.0, 3600.0)),
            timeout_seconds=chance.choice((900.0, 1800.0, 7200.0)),
            max_in_flight=self._limit,
            auto_rollback=chance.random() < 0.7,
            limits=loose if chance.random() < 0.5 else replace(Limits(), silence_seconds=4 * 3600),
            author="ana",
            target=Target(site=site),
            priority=chance.choice(("low", "normal", "high")),
            ramp=Ramp(chance.choice((0.2, 1.0, 3.0)), 2.0, 2) if chance.random() < 0.3 else None,
            needs_approval=asks,
            manual=strategy in ("canary", "rolling") and chance.random() < 0.15,
            stage_ratio=0.7 if strategy == "blue-green" and chance.random() < 0.5 else 1.0,
            recalls_per_minute=chance.choice((1.0, 1000.0)),
            # Who falls silent before its window is waited for through several of them: longer than this day.
            window=self._timetable() if chance.random() < 0.3 and not self._silent else None,
        )
        order = waves.order(name, classes, classes_first=strategy == "canary")
        return rollout, waves.assign(order, made)

    @property
    def _last(self) -> float:
        return DAY if all(rollout.window is None for rollout, _ in self.rollouts) else 3 * DAY

    @property
    def _silent(self) -> bool:
        return any(device.temper == "silent" for device in self.devices.values())

    def _timetable(self) -> Timetable:
        """A few hours of the morning, so that what waits for them ends before the evening."""
        start = self.chance.randint(0, 9 * 60)
        end = start + self.chance.choice((20, 90, 240))
        wall = [f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)]
        return Timetable(Hours(start=wall[0], end=wall[1]), "UTC", self.chance.choice((0, 600)))

    @property
    def _limit(self) -> int:
        return 1 + self.seed % 4

    # --- the day -----------------------------------------------------------------------------------------------

    async def play(self) -> "History":
        """From midnight until everything is over, at most to the next midnight; with windows two days more, for who
        was told after its window waits for that of tomorrow.
        """
        self.rollouts = [(rollout, wave_of) for rollout, wave_of in self.rollouts if wave_of]
        await self.manager.open(self.rollouts, list(self.devices.values()))
        self._people()
        self._faults()
        self._push(0.0, "tick")
        while self._heap:
            self.now, _, kind, subject = heapq.heappop(self._heap)
            if self.now > self._last:
                break
            await self._happens(kind, subject)
            await self.manager.advance(self.now)
            await self._check()
        await self._end()
        await self.manager.close()
        return self

    def _push(self, when: float, kind: str, subject: str = "") -> None:
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, kind, subject))

    def _people(self) -> None:
        for rollout, _ in self.rollouts:
            for _ in range(self.chance.choice((0, 0, 1, 3))):
                verb = self.chance.choice(("pause", "resume", "promote", "abort", "rollback", "approve"))
                self._push(self.chance.uniform(60, 20000), verb, rollout.id)
            if rollout.needs_approval or rollout.manual:
                for _ in range(len(rollout.waves) + 1):
                    self._push(self.chance.uniform(60, 30000), "approve", rollout.id)
            self._push(EVENING, "resume", rollout.id)
            self._push(EVENING + 1, "let-go", rollout.id)

    def _faults(self) -> None:
        for device in self.devices.values():
            if device.temper == "flapping":
                for _ in range(self.chance.randint(1, 6)):
                    self._push(self.chance.uniform(0, 12000), "flap", device.id)
            if device.temper == "silent":
                self._push(self.chance.uniform(0, 3000), "flap", device.id)
        if self.chance.random() < 0.3:
            self._push(self.chance.uniform(100, 6000), "enrol")

    async def _happens(self, kind: str, subject: str) -> None:
        match kind:
            case "tick":
                self._ticking = not await self._over()
                if self._ticking:
                    self._push(self.now + TICK, "tick")
                for name in sorted(self._waiting):  # alive, though it has no news for hours
                    await self._speak(self.devices[name])
            case "work":
                name, turn = subject.split()
                if self._working.get(name) != int(turn):
                    return  # it was called to something else meanwhile
                device = self.devices[name]
                del self._working[name]
                self._check_window(device)
                device.step()
                await self._speak(device)
                self._work(device)
            case "flap":
                device = self.devices[subject]
                device.online = not device.online
                await self._speak(device)
                if device.temper == "flapping" and not device.online:
                    self._push(self.now + self.chance.uniform(5, 2000), "flap", subject)
            case "deliver":
                await self._deliver(subject)
            case "enrol":
                await self._enrol()
            case _:
                await self._ask(kind, subject)

    async def _ask(self, verb: str, rollout: str) -> None:
        decide = self._decision(verb)
        self._done.discard(rollout)
        if verb == "let-go" and await self._over():
            return
        if not self._ticking:
            self._ticking = True
            self._push(self.now + TICK, "tick")
        try:
            await self.manager.change(rollout, decide, self.now)
        except (RolloutStateError, OwnApprovalError) as error:
            self._note(f"{rollout} {verb} {error.code}")
        else:
            self._note(f"{rollout} {verb}")

    def _decision(self, verb: str) -> changing.Change:
        match verb:
            case "pause":
                return changing.pausing("ana")
            case "resume":
                return changing.resuming("ana")
            case "promote":
                return changing.promoting("ana")
            case "approve":
                return changing.approving(self.chance.choice(("ana", "ben", "eva")))
            case "rollback":
                return changing.aborting("by hand", ALL_BACK)
            case "let-go":
                return changing.aborting("the day is over", None)
            case _:
                chosen = tuple(effect for effect in Effect if self.chance.random() < 0.5)
                return changing.aborting("by hand", self.chance.choice((None, chosen)))

    async def _enrol(self) -> None:
        device = self._device("cam-99", frozenset(), "nano")
        self.devices[device.id] = device
        await self.manager.enrol(device)

    # --- the network -------------------------------------------------------------------------------------------

    def _told(self, name: str, order: Order) -> None:
        if (name, order.number) in self._told_orders:
            return  # said again, as after a restart of the manager: it is on its way already
        self._told_orders[name, order.number] = order
        when = "" if order.activate == "now" else f" for {order.activate}"
        self._note(f"{name} told {order.version}{when} by {order.rollout}")
        self._orders[name, order.rollout, order.version, order.activate] += 1
        device = self.devices[name]
        if device.temper == "silent" and not device.online:
            return  # for ever
        times = 2 if device.temper == "repeating" else 1
        for _ in range(times):
            self._push(self.now + device.chance.uniform(0, 3), "deliver", f"{name} {order.number}")

    async def _deliver(self, subject: str) -> None:
        name, number = subject.split()
        device = self.devices[name]
        if not device.online:
            if device.temper != "silent":
                self._push(self.now + 60, "deliver", subject)
            return
        if device.announce(self._told_orders[name, int(number)]):
            self._work(device)
        await self._speak(device)

    def _work(self, device: VirtualDevice) -> None:
        if device.id in self._working and device.id not in self._waiting:
            return  # one effect at a time; who waits for a window looks anew
        if (seconds := device.takes(at(self.now))) is not None:
            self._effects += 1
            self._working[device.id] = self._effects
            shut = device.waits(at(self.now))
            (self._waiting.add if shut else self._waiting.discard)(device.id)
            self._push(self.now + seconds, "work", f"{device.id} {self._effects}")

    async def _speak(self, device: VirtualDevice) -> None:
        said = list(device.outbox) if device.online else []
        if device.online:
            device.outbox.clear()
        if device.temper == "lying" and said:
            said = [
                replace(it, phase=type(it.phase).COMMITTED, reason=None) if it.phase == "failed" else it for it in said
            ]
        repeated = [it for it in said for _ in range(2)] if device.temper == "repeating" else said
        await self.manager.hear(device, repeated, self.now)

    def _note(self, text: str) -> None:
        self.log.append(f"{self.now:.3f} {text}")

    # --- what must always hold ---------------------------------------------------------------------------------

    async def _check(self) -> None:
        self.steps += 1
        looks = [(it, known) for it, known in await self.manager.look() if it.id not in self._done]
        self._done |= {rollout.id for rollout, _ in looks if rollout.state in TERMINAL}
        busy = sum(
            pacing.at_work(rollout, member) and member.recalled_at is None
            for rollout, evidence in looks
            if rollout.state not in TERMINAL
            for member in evidence.members
            # What is told all at once in this very look may come after what the others were told in it.
            if rollout.strategy != "all-at-once" or member.told_at != at(self.now)
        )
        for rollout, evidence in looks:
            fresh = [it for it in evidence.members if it.told_at == at(self.now) and it.online]
            if fresh and rollout.strategy != "all-at-once":
                assert busy <= self._limit, f"seed {self.seed} at {self.now}: {busy} at work, {self._limit} may"
            self._check_one(rollout, evidence)
        for device in self.devices.values():
            assert device.good is not None or device.beside is None, f"seed {self.seed}: {device.id} has no good slot"

    def _check_window(self, device: VirtualDevice) -> None:
        """What swaps now, swaps inside its window."""
        window = device.swaps_in()
        place = f"seed {self.seed} at {self.now}: {device.id}"
        assert window is None or is_open(window, at(self.now)), f"{place} swaps outside of {window.text()}"

    def _check_told(self, rollout: Rollout, member: Member) -> None:
        """A device that cannot wait for a window by itself is told inside it."""
        device = self.devices[member.device]
        if rollout.window is None or device.waits_itself or member.told_at != at(self.now):
            return
        window = window_of(rollout.window, rollout.id, device.id, {ZONE_LABEL: device.zone})
        assert is_open(window, at(self.now)), f"seed {self.seed} at {self.now}: {device.id} told outside of its window"

    def _check_one(self, rollout: Rollout, evidence: Evidence) -> None:
        place = f"seed {self.seed} at {self.now}: {rollout.id}"
        for member in evidence.members:
            assert not member.touched or member.wave <= rollout.wave, f"{place}: {member.device} before its wave"
            self._check_told(rollout, member)
            assert not (member.told_at == at(self.now) and rollout.state is State.PAUSED), place
        sizes = tuple(wave.size for wave in rollout.waves)
        before = self._sizes.get(rollout.id, sizes)
        assert sum(sizes) == len(evidence.members), f"{place}: waves of {sizes} for {len(evidence.members)} devices"
        for index in range(min(rollout.wave, len(sizes) - 2) + 1):
            was = self._sizes.get(f"{rollout.id} {index}", sizes[index])
            assert sizes[index] == was, f"{place}: wave {index} grew from {before} to {sizes} after it was out"
            self._sizes[f"{rollout.id} {index}"] = sizes[index]
        self._sizes[rollout.id] = sizes
        if self.steps % 3 == 0 and rollout.state in (State.RUNNING, State.PAUSED, State.AWAITING_APPROVAL):
            waits = pacing.waits(rollout, evidence, at(self.now))
            for member in evidence.members:
                held = member.told_at is None and member.state == QUEUED
                assert not held or waits.get(member.device), f"{place}: {member.device} waits for nothing"

    async def _over(self) -> bool:
        looks = await self.manager.look()
        return all(rollout.state in TERMINAL for rollout, _ in looks) and not any(
            kind in ("work", "deliver", "enrol") for _, _, kind, _ in self._heap
        )

    async def _end(self) -> None:
        for rollout, evidence in await self.manager.look():
            assert rollout.state in TERMINAL, f"seed {self.seed}: {rollout.id} is {rollout.state} after a day"
            self.ends[rollout.id] = f"{rollout.state}: {rollout.reason}"
            for member in evidence.members:
                state, reason, detail = shown(member)
                assert state in ENDED, f"seed {self.seed}: {rollout.id} leaves {member.device} {state}"
                assert state == "committed" or reason, f"seed {self.seed}: {member.device} is {state} without a reason"
                if member.recalled_at is not None and member.previous is None and member.back:
                    assert self.devices[member.device].serving is None, f"seed {self.seed}: {member.device} kept it"
                self.ends[f"{rollout.id} {member.device}"] = f"{state} {reason} {detail}"
        for (device, rollout_id, version, activate), number in self._orders.items():
            allowed = 2 if version == "2.0.0" and activate == "now" and self._also_staged(device, rollout_id) else 1
            assert number <= allowed, f"seed {self.seed}: {device} was told {version} by {rollout_id} {number} times"

    def _also_staged(self, device: str, rollout: str) -> bool:
        return bool(self._orders.get((device, rollout, "2.0.0", "later")))
