"""When a version that was committed has to go: its worker dies again and again.

One death is nothing: the fork server has the next worker ready in milliseconds. `DEATHS` within `WINDOW_SECONDS`
are a loop. Going back happens once for a release: what was left for this reason is never gone back to, so two
versions that both crash cannot take turns.

I/O: none.
"""

from collections.abc import Collection, Sequence
from typing import Final

from agent.update import slots
from agent.update.lifecycle import SlotName

DEATHS: Final = 5
WINDOW_SECONDS: Final = 300.0


def recent(deaths: Sequence[float], now: float) -> tuple[float, ...]:
    """The deaths that still count at `now`, in seconds of a monotonic clock."""
    return tuple(at for at in deaths if now - at < WINDOW_SECONDS)


def loops(deaths: Sequence[float], now: float) -> bool:
    """Whether these deaths are a loop."""
    return len(recent(deaths, now)) >= DEATHS


def refuge(record: slots.Record, bad: Collection[str]) -> SlotName | None:
    """The slot to go back to; None when there is none. `bad` are manifests proven bad here."""
    found = slots.beside(record)
    return None if found is None or record[found].manifest in bad else found
