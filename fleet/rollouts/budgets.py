"""How fast a rollout may go, and how much it may draw over the line of a site.

I/O: none.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ramp:
    """At most `per_minute` devices are told a minute at first; `factor` times as many after each `every` successes."""

    per_minute: float
    factor: float = 2.0
    every: int = 10


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """What the rollouts may draw over the line of one site; None: as much as there is."""

    in_flight_bytes: int | None = None
    hourly_bytes: int | None = None
