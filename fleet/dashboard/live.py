"""One stream per page: fragments are rendered once per tick for all who look, and only what changed travels.

I/O: tasks.
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi.sse import ServerSentEvent

from fleet.hub import Hub
from shared.clock import Clock

TICK_SECONDS: Final = 1.0  # a page changes at most this often
QUIET_SECONDS: Final = 4.0  # and shows its age at least this often
STREAM_SECONDS: Final = 1800.0  # then the page opens a new one
WELCOME_SECONDS: Final = 4.0  # whoever lost the permission loses the page within this time
#: A page that is dear to render is rendered less often: at most this fraction of the time, one in so many.
RENDER_SHARE: Final = 5.0
_BOARDS: Final = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """A page at one instant: target id -> HTML, and the numbers of its chart."""

    fragments: Mapping[str, str]
    chart: Mapping[str, object] | None = None
    digests: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        texts = {**self.fragments, **({"": json.dumps(self.chart)} if self.chart is not None else {})}
        object.__setattr__(self, "digests", {key: _digest(text) for key, text in texts.items()})


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Board:
    """One page for all its viewers: `frame` renders at most once per tick."""

    def __init__(self, render: Callable[[], Awaitable[Frame]], clock: Clock) -> None:
        self._render = render
        self._clock = clock
        self._lock = asyncio.Lock()
        self._frame: Frame | None = None
        self._until = 0.0
        self.renders = 0

    async def frame(self) -> Frame:
        """The page as of this tick."""
        async with self._lock:
            began = self._clock.monotonic()
            if self._frame is None or began >= self._until:
                self._frame = await self._render()
                spent = self._clock.monotonic() - began
                self._until = began + max(TICK_SECONDS * 0.9, RENDER_SHARE * spent)
                self.renders += 1
            return self._frame


class Boards:
    """The boards that are looked at; those that nobody asked for the longest give way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._boards: OrderedDict[str, Board] = OrderedDict()

    def board(self, key: str, render: Callable[[], Awaitable[Frame]]) -> Board:
        """The board called `key`, made now if there is none."""
        if key not in self._boards:
            self._boards[key] = Board(render, self._clock)
            while len(self._boards) > _BOARDS:
                self._boards.popitem(last=False)
        self._boards.move_to_end(key)
        return self._boards[key]


def partial(target: str, html: str) -> str:
    """`html` as htmx takes it: morph it into the element `#target`."""
    return f'<hx-partial hx-target="#{target}" hx-swap="outerMorph">{html}</hx-partial>'


async def stream(
    board: Board, hub: Hub, clock: Clock, welcome: Callable[[], Awaitable[bool]]
) -> AsyncIterator[ServerSentEvent]:
    """Messages for one viewer: changed fragments, changed charts, and a beat that says the manager is there."""
    sent: dict[str, str] = {}
    until, ask_at = clock.monotonic() + STREAM_SECONDS, clock.monotonic() + WELCOME_SECONDS
    while clock.monotonic() < until:
        if clock.monotonic() >= ask_at:
            if not await welcome():
                return
            ask_at = clock.monotonic() + WELCOME_SECONDS
        seen = hub.count
        started = clock.monotonic()
        frame = await board.frame()
        changed = [key for key, digest in frame.digests.items() if sent.get(key) != digest]
        sent.update({key: frame.digests[key] for key in changed})
        if html := "".join(partial(key, frame.fragments[key]) for key in changed if key):
            yield ServerSentEvent(raw_data=html)
        if "" in changed:
            yield ServerSentEvent(data=frame.chart, event="chart")
        yield ServerSentEvent(raw_data="1", event="beat")
        await hub.wait(seen, QUIET_SECONDS)
        await asyncio.sleep(max(0.0, TICK_SECONDS - (clock.monotonic() - started)))
