"""A device without files or processes that walks along the real table of an update, faults and all.

`agent.update.lifecycle` says what may follow what, what each state owes and what the fleet is told; only how long an
effect takes and what comes of it is invented here, from the device's own temper and the history's chance.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final, Literal

from agent.update import lifecycle
from agent.update.lifecycle import Draft, Effect, Event, State, Update
from shared.windows import Window, begin

Activate = Literal["now", "later", "never"]  # as assignments say it
Temper = Literal["good", "slow", "silent", "flapping", "broken", "crashing", "lying", "repeating"]
TEMPERS: Final[tuple[Temper, ...]] = (
    *("good",) * 14, "slow", "silent", "flapping", "flapping", "broken", "crashing", "lying", "repeating",
)  # fmt: skip
#: Seconds that each effect takes, at least and at most.
TAKES: Final = {
    Effect.FETCH: (5, 240),
    Effect.ASSEMBLE: (1, 20),
    Effect.SELF_TEST: (2, 60),
    Effect.SWAP: (1, 5),
    Effect.WATCH: (30, 300),
}
#: What a swap and its probation may take; and what is not in this day.
NEEDED: Final = timedelta(minutes=6)
FAR: Final = 400 * 86400.0


@dataclass(frozen=True)
class Order:
    """An assignment, without its signatures."""

    number: int
    rollout: str
    version: str
    activate: Activate = "now"
    window: Mapping[str, Any] | None = None  # as an assignment carries it


@dataclass
class VirtualDevice:
    """`good` is the slot that serves for good, `beside` a good version in the other one."""

    id: str
    hardware: str
    site: str
    temper: Temper
    chance: Random
    good: str | None
    bad_versions: frozenset[str]  # do not survive their probation here
    zone: str = "UTC"
    waits_itself: bool = True  # its agent knows windows
    beside: str | None = None
    online: bool = True
    current: Update | None = None
    waiting: Update | None = None
    seen: int = 0
    proven_bad: set[str] = field(default_factory=set)
    outbox: deque[Draft] = field(default_factory=deque)
    downloads: int = 0

    def announce(self, order: Order) -> bool:
        """True when it is news. An older one, or the same again, is none."""
        if order.number <= self.seen:
            return False
        self.seen = order.number
        if self.waiting is not None:
            self._tell(lifecycle.advance(self.waiting, Event.SUPERSEDED, reason="E_CANCELLED"))
        self.waiting = Update(
            assignment=order.number,
            model="digits",
            version=order.version,
            manifest=order.version,
            sealed_key="",
            rollout=order.rollout,
            later=order.activate == "later",
            called_off=order.activate == "never",
            window=None if order.window is None else Window.model_validate(order.window),
        )
        return True

    def takes(self, now: datetime) -> float | None:
        """Seconds until the owed effect is done; None when there is nothing to do, or it waits to be told."""
        if self.current is None and self.waiting is None:
            return None
        update = self._adopted() if self.current is not None else self.waiting
        assert update is not None
        if lifecycle.holds_back(update) and not self._pushed_aside():
            return None
        least, most = TAKES.get(lifecycle.OWES[update.state], (0, 1))
        factor = 40 if self.temper == "slow" and self.chance.random() < 0.3 else 1
        seconds = self.chance.uniform(least, most) * factor
        return max(seconds, self._shut(update, now))

    def waits(self, now: datetime) -> bool:
        """True while only its window keeps it from a swap."""
        update = self.current
        return update is not None and self._shut(update, now) > 0

    def swaps_in(self) -> Window | None:
        """The window of what it swaps in with its next step; None when it swaps nothing, or may at any time."""
        update = self.current
        if update is None or lifecycle.OWES.get(update.state) is not Effect.SWAP or self._pushed_aside():
            return None
        return None if lifecycle.holds_back(update) else update.window

    def _shut(self, update: Update, now: datetime) -> float:
        """Seconds until its window opens. Only a swap waits for it, and none that is pushed aside."""
        if update.window is None or lifecycle.OWES.get(update.state) is not Effect.SWAP or self._pushed_aside():
            return 0.0
        opens = begin(update.window, now, needed=NEEDED)
        return FAR if opens is None else (opens - now).total_seconds()

    def step(self) -> None:
        """The owed effect is done: the next state, durable before it is told."""
        if self.current is None:
            self.current, self.waiting = self.waiting, None
            assert self.current is not None
            self._tell(self.current)
            return
        update = self._adopted()
        if lifecycle.holds_back(update) and not self._pushed_aside():
            return
        event, reason = self._outcome(update)
        self._perform(update, event)
        self.current = lifecycle.advance(update, event, reason=reason)
        self._tell(self.current)
        if self.current.final:
            self.current = None
        assert self.good is not None or self.beside is None

    def _adopted(self) -> Update:
        update, waiting = self.current, self.waiting
        assert update is not None
        if waiting is not None and lifecycle.may_adopt(update, waiting):
            self.waiting = None
            newer = {"assignment": waiting.assignment, "rollout": waiting.rollout, "window": waiting.window}
            self.current = replace(update, later=waiting.later, **newer)
        assert self.current is not None
        return self.current

    def _pushed_aside(self) -> bool:
        return (
            self.current is not None
            and self.waiting is not None
            and lifecycle.may_supersede(self.current, self.waiting)
        )

    def _outcome(self, update: Update) -> tuple[Event, str | None]:
        if update.called_off or self._pushed_aside():
            return Event.SUPERSEDED, "E_CANCELLED"
        match lifecycle.OWES[update.state]:
            case Effect.PLAN:
                return self._planned(update)
            case Effect.CLEAR:
                return Event.CLEARED, None
            case Effect.FETCH:
                self.downloads += 1
                return Event.FETCHED, None
            case Effect.ASSEMBLE:
                return Event.ASSEMBLED, None
            case Effect.STAGE:
                return Event.STAGED, None
            case Effect.SELF_TEST:
                fails = self.temper == "broken" and update.version != "1.0.0"
                return (Event.REJECTED, "E_GOLDEN_MISMATCH") if fails else (Event.PASSED, None)
            case Effect.SWAP:
                return Event.SWAPPED, None
            case Effect.WATCH:
                return self._watched(update)
            case Effect.COMMIT:
                return Event.COMMITTED, None
            case _:
                return Event.RETIRED, None

    def _planned(self, update: Update) -> tuple[Event, str | None]:
        if update.version == self.good:
            return Event.SERVED, None
        if update.version in self.proven_bad:
            return Event.REJECTED, "E_KNOWN_BAD"
        return (Event.HELD if update.version == self.beside else Event.PLANNED), None

    def _watched(self, update: Update) -> tuple[Event, str | None]:
        harmed = update.version in self.bad_versions or (self.temper == "crashing" and update.version != "1.0.0")
        if harmed and self.temper != "lying":
            return Event.REJECTED, "E_PROBATION_CRASH" if self.temper == "crashing" else "E_PROBATION_ERRORS"
        return Event.PASSED, None

    def _perform(self, update: Update, event: Event) -> None:
        if event in (Event.CLEARED, Event.HELD):
            self.beside = None
        elif event is Event.COMMITTED:
            self.good, self.beside = update.version, self.good
        elif event is Event.RETIRED and update.state in (State.CONDEMNED, State.FAILING):
            self.proven_bad.add(update.version)

    def _tell(self, update: Update) -> None:
        if found := lifecycle.draft(update):
            self.outbox.append(found)

    @property
    def serving(self) -> str | None:
        """What answers requests, as it says itself."""
        current = self.current
        if current is not None and current.state in lifecycle.SWAPPED_IN:
            return current.version
        return self.good

    @property
    def idle(self) -> bool:
        """Nothing to do, nothing to say."""
        return self.current is None and self.waiting is None and not self.outbox
