"""What one look found of one feature of one release in one scope.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

from fleet.telemetry.baselines import Reference
from fleet.telemetry.drift import Statistics

FLEET: Final = "fleet"
Cell = tuple[str, str, str, str]  # scope, model, version, feature


@dataclass(frozen=True, slots=True)
class Ringing:
    """The calibrated alarm of a feature: which window and test it came from, and how large the change is there."""

    p: float  # corrected for all windows and tests of a look
    limit: float
    hours: int
    test: str  # moved, shape, low, high, missing
    samples: int
    psi: float  # corrected for chance and dispersion
    psi_lower: float
    psi_limit: float  # the smallest PSI that this window can tell from chance
    shift: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Statistics and counts are those of the detection window; `p` is corrected for dispersion, they are not."""

    scope: str
    model: str
    version: str
    feature: str
    samples: int
    missing: int
    statistics: Statistics
    reference: Reference
    counts: tuple[int, ...]
    expected: tuple[int, ...]  # what they are compared with
    p: float
    matters: bool
    dispersion: tuple[float, float, float]  # phi_1, phi_2, g of the residual
    psi_limit: float  # the smallest PSI that the detection window can tell from chance, dispersion included
    alarm: Ringing | None = None

    @property
    def cell(self) -> Cell:
        """Its key."""
        return self.scope, self.model, self.version, self.feature


def level(scope: str) -> str:
    """`device`, `site`, `hardware` or `fleet`."""
    return scope.partition(":")[0]
