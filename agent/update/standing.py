"""What serves a model on this device, and why: for `flotilla-agent slots` and `status`.

I/O: none.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.update.lifecycle import Ending, SlotName, Update
from agent.update.slots import Record, Slot
from shared.messages import ShadowFigures
from shared.shadow import in_words


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a model is not served as it should be."""

    code: str
    detail: str
    since: datetime
    safe_mode: bool  # nothing answers


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an update does not go on at this moment."""

    code: str
    detail: str
    since: datetime


@dataclass(frozen=True, slots=True)
class AtWork:
    """The update that is being performed."""

    version: str
    state: str
    assignment: int
    rollout: str | None
    waiting: Waiting | None
    shadow: ShadowFigures | None = None  # how it did beside what serves
    shadow_words: str = ""  # the same for people


@dataclass(frozen=True, slots=True)
class Standing:
    """All there is to say about one model."""

    model: str
    serving: str | None  # version that answers
    why: str
    active: SlotName | None
    last_good: SlotName | None
    trial: SlotName | None
    tries_left: int
    alone: bool  # the trial; the version before is not loaded beside it
    minimum_counter: int
    slots: dict[SlotName, Slot]
    trouble: Trouble | None
    update: AtWork | None
    last_end: Ending | None


def standing(
    record: Record,
    *,
    serving: str | None,
    trouble: Trouble | None,
    current: Update | None,
    waiting: Waiting | None,
    last_end: Ending | None,
) -> Standing:
    """Put together what is known of one model; `current` is the update at work on any model."""
    own = current if current is not None and current.model == record.model else None
    at_work = None
    if own is not None:
        words = in_words(own.compared) if own.compared is not None else ""
        at_work = AtWork(own.version, own.state.value, own.assignment, own.rollout, waiting, own.compared, words)
    return Standing(
        model=record.model,
        serving=serving,
        why=_why(record, serving, trouble),
        active=record.active,
        last_good=record.last_good,
        trial=record.trial,
        tries_left=record.tries_left,
        alone=record.alone,
        minimum_counter=record.minimum_counter,
        slots={"a": record.a, "b": record.b},
        trouble=trouble,
        update=at_work,
        last_end=last_end,
    )


def _why(record: Record, serving: str | None, trouble: Trouble | None) -> str:
    if serving is None:
        if trouble is not None and trouble.safe_mode:
            return "safe mode: no version can serve; a new release is welcome"
        return "no version yet" if record.last_good is None else "being started"
    if record.trial is not None and record[record.trial].version == serving:
        starts = "1 more start" if record.tries_left == 1 else f"{record.tries_left} more starts"
        mode = ", without the version before in memory" if record.alone else ""
        return f"on probation ({starts} allowed{mode})"
    if record.last_good is not None and record[record.last_good].version == serving:
        return "the last good version"
    return "stands in for the last good version"
