"""Lines of a restored manager: what a device forgot, because the manager had it before, never comes again.

An outbox sends from its oldest message on, over and over, until that is acknowledged. So a message beyond a gap that
comes a second time, with none below it in between, is the oldest there is, and the line goes on with it (ADR 35).

I/O: none.
"""

from __future__ import annotations

Line = tuple[str, str, str]  # device, stream, kind


class Gaps:
    """What came beyond a gap, of each line the lowest."""

    def __init__(self) -> None:
        self._lowest: dict[Line, int] = {}

    def over(self, line: Line, sequence: int) -> bool:
        """Whether the line goes on with `sequence`, which came beyond a gap. False: not yet known; wait."""
        lowest = self._lowest.get(line)
        if lowest == sequence:
            del self._lowest[line]
            return True
        if lowest is None or sequence < lowest:
            self._lowest[line] = sequence
        return False
