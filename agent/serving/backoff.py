"""How long to wait before something that died is started again.

I/O: none.
"""

from typing import Final

_DELAYS: Final = (0.0, 0.0, 0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
_HEALTHY_SECONDS: Final = 60.0


class Backoff:
    """At once the first two times, as a request that kills is tried twice, then ever later; a long life wipes the
    slate."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay(self, lived_seconds: float) -> float:
        """Seconds to wait after a death that ended a life of `lived_seconds`."""
        if lived_seconds >= _HEALTHY_SECONDS:
            self._deaths = 0
        found = _DELAYS[min(self._deaths, len(_DELAYS) - 1)]
        self._deaths += 1
        return found
