from dataclasses import replace

import pytest

from fleet.settings import FleetSettings
from fleet.telemetry import verdict
from fleet.telemetry.baselines import Reference
from fleet.telemetry.drift import Pair, Statistics, compare
from fleet.telemetry.finding import Finding, Ringing
from fleet.telemetry.verdict import Grade, Rule, Standing

RULE = Rule.of(FleetSettings())
SAME: Statistics = compare([Pair([500, 500], [500, 500], [1, 1])], 5e-5)[0]
MOVED = replace(SAME, psi=0.84, psi_corrected=0.83, psi_lower=0.7, p=1e-30, shift=-20.0)
ALARM = Ringing(
    p=1e-12, limit=1e-6, hours=4, test="moved", samples=240, psi=0.83, psi_lower=0.7, psi_limit=0.1, shift=-0.9
)


def finding(
    statistics: Statistics, samples: int = 240, p: float = 1.0, *, matters: bool = True, alarm: Ringing | None = None
) -> Finding:
    return Finding(
        scope="device:cam-1", model="digits", version="1.0.0", feature="input.brightness", samples=samples, missing=0,
        statistics=statistics, reference=Reference("input", "quantity", "d", (0.5,), (500, 500), (1, 1)),
        counts=(500, 500), expected=(500, 500), p=p, matters=matters, dispersion=(1, 1, 1), psi_limit=0.1, alarm=alarm,
    )  # fmt: skip


QUIET, DRIFTED = finding(SAME), finding(MOVED, p=1e-20, alarm=ALARM)


def test_an_alarm_is_drift_and_a_surprise_without_one_is_a_warning() -> None:
    assert verdict.look(RULE, Standing(), DRIFTED) == Standing("drifted", 0, 1)
    assert verdict.look(RULE, Standing("drifted", 0, 1), DRIFTED) == Standing("drifted", 0, 2)
    assert verdict.look(RULE, Standing(), finding(MOVED, p=1e-20)).state == "warning"
    assert verdict.look(RULE, Standing(), finding(MOVED, p=0.01)).state == "ok"  # large, and may be chance
    assert verdict.look(RULE, Standing(), QUIET).state == "ok"


def test_too_few_samples_are_never_graded() -> None:
    assert verdict.look(RULE, Standing(), finding(MOVED, samples=99, p=1e-20)).state == "collecting"
    few = finding(MOVED, samples=99)
    assert verdict.look(RULE, Standing("drifted", 1), few) == Standing("drifted", 1)
    hidden = replace(finding(replace(MOVED, psi_corrected=0.25, psi_lower=-0.1)), psi_limit=0.4)
    assert verdict.insufficient(RULE, hidden)
    assert verdict.grade(RULE, hidden) == Grade(None, confirmed=False)
    certain = replace(DRIFTED, alarm=replace(ALARM, psi_limit=0.4))
    assert verdict.grade(RULE, certain) == Grade("critical", confirmed=True)  # its lower bound alone is critical


def test_drift_ends_after_quiet_looks_in_a_row() -> None:
    standing = verdict.look(RULE, Standing(), DRIFTED)
    uneasy = finding(MOVED, p=1e-9)
    for found, expected in [
        (uneasy, Standing("drifted", 0)),
        (QUIET, Standing("drifted", 1)),
        (QUIET, Standing("drifted", 2)),
        (uneasy, Standing("drifted", 0)),
        (finding(SAME, alarm=ALARM), Standing("drifted", 0, 1)),  # rings in a short window
        (finding(SAME, alarm=replace(ALARM, hours=64)), Standing("drifted", 1, 2)),  # a long one remembers
        (finding(MOVED, p=1e-9, matters=False), Standing("drifted", 2)),  # certain, and too small to matter
        (QUIET, Standing("ok", 0)),
    ]:
        standing = verdict.look(RULE, standing, found)
        assert standing == expected


@pytest.mark.parametrize(
    ("psi", "severity"),
    [(0.049, None), (0.05, "low"), (0.1, "medium"), (0.2, "high"), (0.29, "high"), (0.3, "critical"), (9, "critical")],
)
def test_severity_by_the_cuts_of_the_settings(psi: float, severity: str | None) -> None:
    assert verdict.severity(RULE, psi) == severity


def test_a_grade_is_confirmed_when_its_lower_bound_reaches_the_cut_too() -> None:
    for lower, confirmed in ((0.29, False), (0.31, True)):
        found = replace(DRIFTED, alarm=replace(ALARM, psi_lower=lower))
        assert verdict.grade(RULE, found) == Grade("critical", confirmed)


def rule(**settings: object) -> Rule:
    return Rule.of(FleetSettings.model_validate(settings))


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("psi_threshold", {"psi": 0.6}),
        ("kl_divergence_threshold", {"kl": 0.6}),
        ("js_divergence_threshold", {"jsd": 0.6}),
    ],
)
def test_fixed_thresholds_raise_alarms_where_they_are_switched_on(name: str, distance: dict[str, float]) -> None:
    far = {"psi_threshold": 9, "kl_divergence_threshold": 9, "js_divergence_threshold": 9}
    found = finding(replace(SAME, **distance))
    for reached, state in ((0.5, "drifted"), (0.7, "ok")):
        on = rule(
            drift_detection={"enable_threshold_rules": True}, thresholds={"statistical_drift": far | {name: reached}}
        )
        assert verdict.look(on, Standing(), found).state == state
        assert verdict.look(RULE, Standing(), found).state == "ok"
        assert verdict.look(on, Standing(), replace(found, samples=99)).state == "collecting"


def test_statistical_tests_can_be_switched_off() -> None:
    off = rule(drift_detection={"enable_statistical_tests": False})
    assert off.limits({"device": 20}) == {}
    assert verdict.look(off, Standing(), DRIFTED).state == "warning"


def test_the_budget_of_false_alarms_is_shared_by_the_levels_that_there_are() -> None:
    one = rule(drift_detection={"false_alarms_per_day": 2}).limits({"device": 20000, "site": 0, "fleet": 20})
    assert one == {"device": pytest.approx(1 / 20000 / 48), "fleet": pytest.approx(1 / 20 / 48)}


def test_sentences() -> None:
    assert verdict.sentence(RULE, DRIFTED) == (
        "input.brightness: PSI 0.83 (limit 0.20), darker than the reference; 240 samples"
    )
    assert verdict.sentence(RULE, finding(SAME, samples=40)) == (
        "input.brightness: collecting (40 of 100); insufficient data: smallest detectable PSI = 0.10"
    )
    assert verdict.sentence(RULE, QUIET) == ("input.brightness: PSI 0.00 (limit 0.20), as the reference; 240 samples")
    assert verdict.sentence(RULE, replace(QUIET, psi_limit=0.41)) == (
        "input.brightness: PSI 0.00 (limit 0.20), as the reference; 240 samples; "
        "insufficient data for a grade: smallest detectable PSI = 0.41"
    )
    assert "more missing values than in the reference" in verdict.sentence(
        RULE, replace(DRIFTED, alarm=replace(ALARM, test="missing"))
    )


@pytest.mark.parametrize(("level", "psi"), [("low", 0.5), ("medium", 0.6), ("high", 0.7), ("critical", 0.8)])
def test_each_cut_of_severity_is_the_one_of_the_settings(level: str, psi: float) -> None:
    cuts = {"low": 0.5, "medium": 0.6, "high": 0.7, "critical": 0.8}
    chosen = rule(thresholds={"severity_levels": cuts})
    assert verdict.severity(chosen, psi) == level
    assert verdict.severity(chosen, psi - 0.01) != level


def test_so_many_samples_as_the_settings_ask_for_are_collected_first() -> None:
    found = finding(SAME, samples=240)
    assert verdict.look(rule(), Standing(), found).state == "ok"
    asked = rule(drift_detection={"min_samples_for_detection": 241})
    assert verdict.look(asked, Standing(), found).state == "collecting"
