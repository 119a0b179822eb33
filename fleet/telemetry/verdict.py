"""Findings to a verdict: collecting, ok, warning, drifted, and how grave.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fleet.alerts.states import Severity
from fleet.settings import FleetSettings
from fleet.telemetry.calibrated import limit
from fleet.telemetry.finding import Finding
from fleet.telemetry.vectors import HOURS_A_DAY

State = Literal["collecting", "ok", "warning", "drifted"]
STATES: Final[tuple[State, ...]] = ("collecting", "ok", "warning", "drifted")
#: Looks in a row from which on an alarm is no flicker.
PERSISTING: Final = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """When a difference is drift."""

    min_samples: int
    significance: float
    tests: bool  # the calibrated alarm
    thresholds: bool  # fixed distances as well
    psi_threshold: float
    kl_threshold: float
    js_threshold: float
    false_alarms_per_day: float
    cuts: Mapping[Severity, float]  # severity -> corrected PSI from which on
    clear_looks: int  # quiet looks in a row that end a drift

    @classmethod
    def of(cls, settings: FleetSettings) -> "Rule":
        """The rule that the settings describe."""
        levels, distances = settings.thresholds.severity_levels, settings.thresholds.statistical_drift
        return cls(
            min_samples=settings.drift_detection.min_samples_for_detection,
            significance=settings.drift_detection.significance,
            tests=settings.drift_detection.enable_statistical_tests,
            thresholds=settings.drift_detection.enable_threshold_rules,
            psi_threshold=distances.psi_threshold,
            kl_threshold=distances.kl_divergence_threshold,
            js_threshold=distances.js_divergence_threshold,
            false_alarms_per_day=settings.drift_detection.false_alarms_per_day,
            cuts={"low": levels.low, "medium": levels.medium, "high": levels.high, "critical": levels.critical},
            clear_looks=settings.alerts.clear_evaluations,
        )

    def limits(self, rows: Mapping[str, int]) -> Mapping[str, float]:
        """Level -> p that raises an alarm, from how many (scope, feature) each level has; a level of none has none."""
        if not self.tests:
            return {}
        used = {name: number for name, number in rows.items() if number}
        return {name: limit(self.false_alarms_per_day, len(used), number) for name, number in used.items()}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a feature stands; looks in a row that were quiet, and that rang."""

    state: State = "collecting"
    quiet: int = 0
    rang: int = 0


@dataclass(frozen=True, slots=True)
class Grade:
    """How grave it is: by PSI without what chance adds; by its lower bound where samples are too few for that."""

    severity: Severity | None
    confirmed: bool  # the lower bound reaches the cut as well


def severity(rule: Rule, psi_corrected: float) -> Severity | None:
    """The gravest level whose cut is reached; None below all of them."""
    reached = [level for level, cut in rule.cuts.items() if psi_corrected >= cut]
    return max(reached, key=lambda level: rule.cuts[level], default=None)


def grade(rule: Rule, found: Finding) -> Grade:
    """Of the window that rang, else of the detection window."""
    alarm = found.alarm
    psi = found.statistics.psi_corrected if alarm is None else alarm.psi
    lower = found.statistics.psi_lower if alarm is None else alarm.psi_lower
    if insufficient(rule, found):
        certain = severity(rule, lower)
        return Grade(certain, certain is not None)
    graded = severity(rule, psi)
    return Grade(graded, graded is not None and lower >= rule.cuts[graded])


def insufficient(rule: Rule, found: Finding) -> bool:
    """True when even a critical change could hide among so few samples."""
    samples = found.samples if found.alarm is None else found.alarm.samples
    smallest = found.psi_limit if found.alarm is None else found.alarm.psi_limit
    return samples < rule.min_samples or smallest > rule.cuts["critical"]


def beyond(rule: Rule, found: Finding) -> bool:
    """True when a fixed threshold is reached, if these count at all."""
    known = found.statistics
    reached = (
        known.psi >= rule.psi_threshold or known.kl >= rule.kl_threshold or known.jsd >= rule.js_threshold
    )  # uncorrected, as the thresholds were meant
    return rule.thresholds and found.samples >= rule.min_samples and reached


def look(rule: Rule, before: Standing, found: Finding) -> Standing:
    """The standing after one look. Drift ends only by evidence: quiet looks, never silence."""
    enough = found.samples >= rule.min_samples
    surprising = found.p < rule.significance
    rings = (rule.tests and found.alarm is not None) or beyond(rule, found)
    if before.state == "drifted":
        fresh = found.alarm is not None and found.alarm.hours <= HOURS_A_DAY  # longer windows remember what is over
        calm = enough and not (surprising and found.matters) and not fresh and not beyond(rule, found)
        quiet = before.quiet + 1 if calm else before.quiet if not enough else 0
        if quiet < rule.clear_looks:
            return Standing("drifted", quiet, before.rang + 1 if rings else 0)
        return Standing("ok")
    if rings:
        return Standing("drifted", 0, 1)
    if not enough:
        return Standing("collecting")
    return Standing("warning" if surprising and found.statistics.psi_corrected >= rule.cuts["medium"] else "ok")


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


def direction(feature: str, shift: float) -> str:
    """What a change of `feature` is called: `brighter`, `lower`."""
    grew, fell = _WORDS.get(feature, ("higher", "lower"))
    return grew if shift > 0 else fell


def sentence(rule: Rule, found: Finding) -> str:
    """One line for people."""
    feature = found.feature
    smallest = f"smallest detectable PSI = {found.psi_limit:.2f}"
    if found.alarm is None and found.samples < rule.min_samples:
        return f"{feature}: collecting ({found.samples} of {rule.min_samples}); insufficient data: {smallest}"
    alarm = found.alarm
    psi = max(0.0, found.statistics.psi_corrected if alarm is None else alarm.psi)
    shift = found.statistics.shift if alarm is None else alarm.shift
    samples = found.samples if alarm is None else alarm.samples
    head = f"{feature}: PSI {psi:.2f} (limit {rule.psi_threshold:.2f})"
    few = f"; insufficient data for a grade: {smallest}" if alarm is None and insufficient(rule, found) else ""
    if alarm is None and (found.p >= rule.significance or not found.matters):
        return f"{head}, as the reference; {samples} samples{few}"
    if alarm is not None and alarm.test in _TAILS:
        return f"{head}, {_TAILS[alarm.test]} than in the reference; {samples} samples"
    return f"{head}, {direction(feature, shift)} than the reference; {samples} samples{few}"


_TAILS: Final[Mapping[str, str]] = {
    "low": "more values below the lowest edge",
    "high": "more values beyond the highest edge",
    "missing": "more missing values",
}
