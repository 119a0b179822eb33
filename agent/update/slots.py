"""What a slot may hold, legal moves, and which slot of a model answers requests.

    EMPTY -assembled-> STAGED -passed-> TESTED -swapped in-> PROBATION -passed-> GOOD
      ^------------------ failed or discarded, from anywhere -------------------'

A model has the slots `a` and `b`. `active` answers requests, `last_good` is what a roll back returns
to, `trial` is the slot on probation. `tries_left` is lowered durably before each start of a trial.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    def __getitem__(self, name: SlotName) -> Slot:
        return self.a if name == "a" else self.b

    @property
    def idle(self) -> SlotName:
        """The slot that a new release goes to."""
        return "b" if self.last_good == "a" else "a"


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


def tested(record: Record, name: SlotName) -> Record:
    """The self-test passed. Repeating it changes nothing."""
    return record if record[name].state is State.TESTED else _moved(record, name, Event.PASSED)


def trial_begun(record: Record, name: SlotName, *, tries: int) -> Record:
    """`name` shall answer from now on, on probation; this start uses up one try."""
    moved = _moved(record, name, Event.SWAPPED_IN)
    return replace(moved, active=name, trial=name, tries_left=tries - 1)


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
    return replace(moved, active=record.trial, last_good=record.trial, trial=None, tries_left=0, minimum_counter=floor)


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
    return replace(emptied, active=record.last_good, trial=None, tries_left=0)


def lost(record: Record, name: SlotName) -> Record:
    """Slot `name` turned out to be damaged, whatever it held: the other one answers if it is good."""
    beside = other(name) if record[other(name)].state is State.GOOD else None
    emptied = _with(record, name, Slot())
    if record.trial == name:
        return replace(emptied, active=record.last_good, trial=None, tries_left=0)
    if record.last_good == name:
        return replace(emptied, last_good=beside, active=record.trial or beside)
    return emptied


def switched(record: Record) -> Record | None:
    """The other good slot answers from now on; None when there is none."""
    if record.trial is not None or record.last_good is None:
        return None
    beside = other(record.last_good)
    if record[beside].state is not State.GOOD:
        return None
    return replace(record, active=beside, last_good=beside)
