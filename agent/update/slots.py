"""What a slot may hold, legal moves, and which slot of a model answers requests.

    EMPTY -assembled-> STAGED -passed-> TESTED -swapped in-> PROBATION -passed-> GOOD
      ^------------------ failed or discarded, from anywhere -------------------'

A model has the slots `a` and `b`. `active` answers requests, `last_good` is what a roll back returns
to, `trial` is the slot on probation. `tries_left` is lowered durably before each start of a trial. A trial
may serve `alone`, when both versions do not fit into memory together: then nothing stands by.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from agent.update.lifecycle import IllegalMoveError, SlotName


class State(StrEnum):
    """What one slot holds."""

    EMPTY = "empty"
    STAGED = "staged"
    TESTED = "tested"
    PROBATION = "probation"
    GOOD = "good"


class Event(StrEnum):
    """What may happen to a slot."""

    ASSEMBLED = "assembled"  # every byte matches the manifest
    RESTAGED = "restaged"  # it was good once and is wanted again
    PASSED = "passed"
    FAILED = "failed"
    SWAPPED_IN = "swapped-in"
    DISCARDED = "discarded"


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.EMPTY: {Event.ASSEMBLED: State.STAGED},
    State.STAGED: {Event.PASSED: State.TESTED, Event.FAILED: State.EMPTY, Event.DISCARDED: State.EMPTY},
    State.TESTED: {Event.SWAPPED_IN: State.PROBATION, Event.FAILED: State.EMPTY, Event.DISCARDED: State.EMPTY},
    State.PROBATION: {Event.PASSED: State.GOOD, Event.FAILED: State.EMPTY, Event.DISCARDED: State.EMPTY},
    State.GOOD: {Event.RESTAGED: State.STAGED, Event.DISCARDED: State.EMPTY},  # never the one that serves
}


def advance(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    try:
        return MOVES[state][event]
    except KeyError:
        raise IllegalMoveError(f"{event} while {state}") from None


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot and the release in it."""

    state: State = State.EMPTY
    version: str | None = None
    manifest: str | None = None
    counter: int = 0
    since: datetime | None = None  # the device's wall time when it came into this state: shown to people
    provider: str | None = None  # that the self-test ran on
    peak_bytes: int | None = None  # memory while loading, measured by the self-test
    resident_bytes: int | None = None  # memory once loaded
    latency_ms: float | None = None  # of one golden row, in the self-test
    stand_in: str | None = None  # why the CPU ran it, where it should be an accelerator


@dataclass(frozen=True, slots=True)
class Record:
    """Both slots of one model. What `slots.json` holds."""

    model: str
    a: Slot = Slot()
    b: Slot = Slot()
    active: SlotName | None = None
    trial: SlotName | None = None
    last_good: SlotName | None = None
    tries_left: int = 0
    minimum_counter: int = 0
    alone: bool = False  # the trial

    def __getitem__(self, name: SlotName) -> Slot:
        return self.a if name == "a" else self.b

    @property
    def idle(self) -> SlotName:
        """The slot that a new release goes to."""
        return "b" if self.last_good == "a" else "a"

    def manifest_of(self, version: str) -> str:
        """Digest of the manifest of `version`; empty when no slot holds that."""
        return next((slot.manifest or "" for slot in (self.a, self.b) if slot.version == version), "")


def other(name: SlotName) -> SlotName:
    """The slot beside `name`."""
    return "b" if name == "a" else "a"


def _with(record: Record, name: SlotName, slot: Slot) -> Record:
    return replace(record, a=slot) if name == "a" else replace(record, b=slot)


def _moved(record: Record, name: SlotName, event: Event) -> Record:
    return _with(record, name, replace(record[name], state=advance(record[name].state, event)))


def staged(record: Record, name: SlotName, *, version: str, manifest: str, counter: int) -> Record:
    """The files of a release are in slot `name`, all checked. Repeating it changes nothing."""
    held = record[name]
    if held.manifest == manifest and held.state in {State.STAGED, State.TESTED}:
        return record
    event = Event.RESTAGED if held.manifest == manifest and held.state is State.GOOD else Event.ASSEMBLED
    return _with(record, name, Slot(advance(held.state, event), version, manifest, counter))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the self-test learnt about a version on this device."""

    provider: str | None = None
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    latency_ms: float | None = None
    stand_in: str | None = None


def tested(record: Record, name: SlotName, found: Measured) -> Record:
    """The self-test passed. Repeating it changes nothing."""
    if record[name].state is State.TESTED:
        return record
    moved = _moved(record, name, Event.PASSED)
    return _with(moved, name, replace(moved[name], **asdict(found)))


def trial_begun(record: Record, name: SlotName, *, tries: int, alone: bool = False) -> Record:
    """`name` shall answer from now on, on probation; this start uses up one try."""
    moved = _moved(record, name, Event.SWAPPED_IN)
    return replace(moved, active=name, trial=name, tries_left=tries - 1, alone=alone)


def trial_started(record: Record) -> Record:
    """The trial is started once more.

    Raises:
        IllegalMoveError: no trial, or no tries left.
    """
    if record.trial is None or record.tries_left <= 0:
        raise IllegalMoveError("no tries left")
    return replace(record, tries_left=record.tries_left - 1)


def committed(record: Record, *, minimum_counter: int) -> Record:
    """The trial is good for ever; only now may the floor rise. Repeating it changes nothing."""
    if record.trial is None:
        return record
    moved = _moved(record, record.trial, Event.PASSED)
    floor = max(record.minimum_counter, minimum_counter)
    return replace(
        moved,
        active=record.trial,
        last_good=record.trial,
        trial=None,
        tries_left=0,
        alone=False,
        minimum_counter=floor,
    )


def retired(record: Record, name: SlotName) -> Record:
    """Slot `name` is empty and the last good one answers. Repeating it changes nothing.

    Raises:
        IllegalMoveError: `name` is the last good slot.
    """
    if name == record.last_good:
        raise IllegalMoveError("the slot that serves is never discarded")
    if record[name].state is State.EMPTY:
        return record
    advance(record[name].state, Event.DISCARDED)
    emptied = _with(record, name, Slot())
    if record.trial != name:
        return emptied
    return replace(emptied, active=record.last_good, trial=None, tries_left=0, alone=False)


def lost(record: Record, name: SlotName) -> Record:
    """Slot `name` turned out to be damaged, whatever it held: the other one answers if it may."""
    emptied = _with(record, name, Slot())
    if record.trial == name:
        return replace(emptied, active=record.last_good, trial=None, tries_left=0, alone=False)
    if record.last_good == name:
        beside = other(name) if may_serve(record, other(name)) else None
        return replace(emptied, last_good=beside, active=record.trial or beside)
    return emptied


def may_serve(record: Record, name: SlotName) -> bool:
    """Whether the slot holds a version that was good here and is not older than what may still serve."""
    return record[name].state is State.GOOD and record[name].counter >= record.minimum_counter


def beside(record: Record) -> SlotName | None:
    """The slot that could serve instead of the last good one; None during a trial or when there is none."""
    if record.trial is not None or record.last_good is None:
        return None
    return other(record.last_good) if may_serve(record, other(record.last_good)) else None


def switched(record: Record) -> Record | None:
    """The other good slot answers from now on; None when there is none."""
    found = beside(record)
    return None if found is None else replace(record, active=found, last_good=found)


def stamped(record: Record, before: Record, now: datetime) -> Record:
    """`record` with `now` as the time of every slot whose state or release is not the one of `before`."""
    for name in ("a", "b"):
        held, was = record[name], before[name]
        if (held.state, held.manifest) == (was.state, was.manifest):
            record = _with(record, name, replace(held, since=held.since or was.since))
        elif held.state is not State.EMPTY:
            record = _with(record, name, replace(held, since=now))
    return record
