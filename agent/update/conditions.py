"""May this machine load a model now, or is it too hot, held back, or busy answering?

I/O: none.
"""

from typing import Final

from agent.settings import UpdateSettings
from agent.telemetry.strain import Strain

BACK_CELSIUS: Final = 3.0  # below the limit, before what waits for a cooler machine goes on
CALM_SECONDS: Final = 10.0  # since a request was last turned away


def hindrance(
    strain: Strain, settings: UpdateSettings, *, turned_away_seconds: float | None, waiting: bool
) -> str | None:
    """Why not, for people; None: go on.

    Args:
        turned_away_seconds: since the endpoint's queue was full for the last time; None: never.
        waiting: something was in the way a moment ago.
    """
    limit, zone = settings.max_temperature_celsius, strain.hottest
    if zone is not None and zone.celsius > limit - (BACK_CELSIUS if waiting else 0.0):
        return f"{zone.celsius:.0f} C at {zone.name}, limit {limit:.0f} C{_mode(strain)}"
    if strain.brakes:
        return f"the machine slows itself down: {', '.join(strain.brakes)}{_mode(strain)}"
    if turned_away_seconds is not None and turned_away_seconds < CALM_SECONDS:
        return "the endpoint turns requests away: its queue is full"
    most = settings.max_cpu_ratio
    if most is not None and strain.cpu_ratio is not None and strain.cpu_ratio > most:
        return f"processors are {strain.cpu_ratio:.0%} busy, limit {most:.0%}"
    return None


def _mode(strain: Strain) -> str:
    return f" (power mode {strain.power_mode})" if strain.power_mode is not None else ""
