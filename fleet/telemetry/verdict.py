"""Statistics to a verdict: collecting, ok, warning, drifted, and how grave.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fleet.alerts.states import Severity
from fleet.settings import FleetSettings
from fleet.telemetry.drift import Statistics

State = Literal["collecting", "ok", "warning", "drifted"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a difference is drift."""

    min_samples: int
    significance: float
    psi_threshold: float
    cuts: Mapping[Severity, float]  # severity -> corrected PSI from which on
    clear_looks: int  # quiet looks in a row that end a drift

    @classmethod
    def of(cls, settings: FleetSettings) -> "Rule":
        """The rule that the settings describe."""
        levels = settings.thresholds.severity_levels
        return cls(
            min_samples=settings.drift_detection.min_samples_for_detection,
            significance=settings.drift_detection.significance,
            psi_threshold=settings.thresholds.statistical_drift.psi_threshold,
            cuts={"low": levels.low, "medium": levels.medium, "high": levels.high, "critical": levels.critical},
            clear_looks=settings.alerts.clear_evaluations,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a feature stands; `quiet` counts the looks in a row that were well below the threshold."""

    state: State = "collecting"
    quiet: int = 0


def severity(rule: Rule, psi_corrected: float) -> Severity | None:
    """The gravest level whose cut is reached; None below all of them."""
    reached = [level for level, cut in rule.cuts.items() if psi_corrected >= cut]
    return max(reached, key=lambda level: rule.cuts[level], default=None)


def look(rule: Rule, before: Standing, samples: int, found: Statistics | None) -> Standing:
    """The standing after one look. Drift ends only by evidence: quiet looks, never silence."""
    if found is None or samples < rule.min_samples:
        return before if before.state == "drifted" else Standing("collecting")
    surprising = found.p < rule.significance
    if surprising and found.psi_corrected >= rule.psi_threshold:
        return Standing("drifted")
    if before.state == "drifted":
        quiet = before.quiet + 1 if found.psi_corrected < rule.psi_threshold / 2 else 0
        if quiet < rule.clear_looks:
            return Standing("drifted", quiet)
    return Standing("warning" if surprising and found.psi_corrected >= rule.cuts["medium"] else "ok")


#: feature -> (when values grew, when they fell)
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "input.brightness": ("brighter", "darker"),
    "input.contrast": ("more contrast", "less contrast"),
    "input.sharpness": ("sharper", "blurrier"),
    "input.mean": ("higher", "lower"),
    "input.spread": ("wider spread", "narrower"),
    "output.confidence": ("surer", "less sure"),
    "output.margin": ("clearer answers", "closer calls"),
    "output.entropy": ("less sure", "surer"),
    "class.predicted": ("other classes", "other classes"),
}


def sentence(rule: Rule, feature: str, samples: int, found: Statistics | None) -> str:
    """One line for people."""
    if found is None or samples < rule.min_samples:
        return f"{feature}: collecting ({samples} of {rule.min_samples})"
    grew, fell = _WORDS.get(feature, ("higher", "lower"))
    psi = f"{feature}: PSI {max(0.0, found.psi_corrected):.2f} (limit {rule.psi_threshold:.2f})"
    if found.p >= rule.significance:
        return f"{psi}, as the reference; {samples} samples"
    return f"{psi}, {grew if found.shift > 0 else fell} than the reference; {samples} samples"
