"""What every driver needs of `fleet.daemon.Manager`; one that needs more adds it where it is used.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fleet.hub import Hub
    from fleet.settings import FleetSettings
    from fleet.store.database import Database
    from shared.clock import Clock


class DriverParts(Protocol):
    """Where things are stored, what time it is, who listens."""

    @property
    def settings(self) -> FleetSettings: ...
    @property
    def database(self) -> Database: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def hub(self) -> Hub: ...
