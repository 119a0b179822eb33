from dataclasses import replace

import pytest

from fleet.settings import FleetSettings
from fleet.telemetry import verdict
from fleet.telemetry.drift import Pair, Statistics, compare
from fleet.telemetry.verdict import Rule, Standing

RULE = Rule.of(FleetSettings())
QUIET: Statistics = compare([Pair([500, 500], [500, 500], [1, 1])], 5e-5)[0]
DRIFTED = replace(QUIET, psi_corrected=0.83, p=1e-30, shift=-20.0)


def look(before: Standing, found: Statistics, samples: int = 240) -> Standing:
    return verdict.look(RULE, before, samples, found)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (QUIET, "ok"),
        (DRIFTED, "drifted"),
        (replace(DRIFTED, psi_corrected=0.2), "drifted"),
        (replace(DRIFTED, psi_corrected=0.199), "warning"),
        (replace(DRIFTED, psi_corrected=0.05), "ok"),
        (replace(DRIFTED, p=0.01), "ok"),  # large, and may be chance
    ],
)
def test_drift_is_both_surprising_and_large(found: Statistics, state: str) -> None:
    assert look(Standing(), found).state == state


def test_too_few_samples_are_never_graded() -> None:
    assert look(Standing(), DRIFTED, samples=99).state == "collecting"
    assert look(Standing("ok"), DRIFTED, samples=99).state == "collecting"
    assert look(Standing("drifted", 1), DRIFTED, samples=99) == Standing("drifted", 1)


def test_drift_ends_after_quiet_looks_in_a_row_well_below_the_threshold() -> None:
    standing = look(Standing(), DRIFTED)
    middle = replace(QUIET, psi_corrected=0.15)
    for found, expected in [
        (middle, Standing("drifted", 0)),
        (QUIET, Standing("drifted", 1)),
        (QUIET, Standing("drifted", 2)),
        (middle, Standing("drifted", 0)),
        (QUIET, Standing("drifted", 1)),
        (QUIET, Standing("drifted", 2)),
        (QUIET, Standing("ok", 0)),
    ]:
        standing = look(standing, found)
        assert standing == expected


@pytest.mark.parametrize(
    ("psi", "severity"),
    [(0.049, None), (0.05, "low"), (0.1, "medium"), (0.2, "high"), (0.29, "high"), (0.3, "critical"), (9, "critical")],
)
def test_severity_by_the_cuts_of_the_settings(psi: float, severity: str | None) -> None:
    assert verdict.severity(RULE, psi) == severity


def test_sentences() -> None:
    words = verdict.sentence(RULE, "input.brightness", 240, DRIFTED)
    assert words == "input.brightness: PSI 0.83 (limit 0.20), darker than the reference; 240 samples"
    assert verdict.sentence(RULE, "output.margin", 40, DRIFTED) == "output.margin: collecting (40 of 100)"
    assert verdict.sentence(RULE, "x", 240, QUIET) == "x: PSI 0.00 (limit 0.20), as the reference; 240 samples"
