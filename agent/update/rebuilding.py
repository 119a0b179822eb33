"""A slot record that is lost or damaged, made anew from what is known otherwise.

What is known: which files lie in the slots and whether each byte is right, which releases were ever committed
here (journal), and how far the update in progress has come (journal). A release that was never committed is
never taken for good; one on trial is tried no more.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.update.lifecycle import SlotName, Update
from agent.update.lifecycle import State as Step
from agent.update.slots import Record, Slot, State

#: What the slot of an update in this state holds. In states that are not here it is about to be written or cleared.
_UNDER_WAY: Final[Mapping[Step, State]] = {
    Step.STAGED: State.STAGED,
    Step.SELF_TESTED: State.TESTED,
    Step.SHADOWING: State.TESTED,
    Step.SHADOWED: State.TESTED,
    Step.PROBATION: State.PROBATION,
    Step.PROVEN: State.PROBATION,
}


@dataclass(frozen=True, slots=True)
class Found:
    """The release whose files, all checked, lie in a slot."""

    version: str
    manifest: str
    counter: int
    minimum_counter: int


def rebuilt(
    model: str,
    found: Mapping[SlotName, Found],
    *,
    goods: Sequence[str],
    floor: int,
    current: Update | None,
) -> Record:
    """The record. `goods` are the manifests ever committed here, the last one at the end; `floor` is the lowest
    release counter that may serve. The trial of `current` has no tries left in it."""
    own = current if current is not None and current.model == model else None
    states = {name: _state(name, held, goods, own) for name, held in found.items()}
    good = [name for name, state in states.items() if state is State.GOOD]
    floor = max([floor, *(found[name].minimum_counter for name in good)])
    good = [name for name in good if found[name].counter >= floor]
    record = Record(model, minimum_counter=floor)
    for name, state in states.items():
        if state is not State.EMPTY and (state is not State.GOOD or name in good):
            held = found[name]
            slot = Slot(state, held.version, held.manifest, held.counter)
            record = replace(record, a=slot) if name == "a" else replace(record, b=slot)
    last_good = max(good, key=lambda name: goods.index(found[name].manifest), default=None)
    trial = next((name for name, state in states.items() if state is State.PROBATION), None)
    return replace(record, active=trial or last_good, last_good=last_good, trial=trial)


def _state(name: SlotName, held: Found, goods: Sequence[str], own: Update | None) -> State:
    if own is not None and own.slot == name and not own.final:
        under_way = _UNDER_WAY.get(own.state, State.EMPTY)
        return under_way if own.manifest == held.manifest else State.EMPTY
    return State.GOOD if held.manifest in goods else State.EMPTY
