"""Too hot, held back, or busy: what keeps a machine from loading a model."""

import pytest

from agent.settings import UpdateSettings
from agent.telemetry.strain import Strain, Zone
from agent.update.conditions import hindrance

SETTINGS = UpdateSettings(max_temperature_celsius=85, max_cpu_ratio=0.9)


def why(strain: Strain, *, turned_away: float | None = None, waiting: bool = False) -> str | None:
    return hindrance(strain, SETTINGS, turned_away_seconds=turned_away, waiting=waiting)


def test_a_calm_machine_goes_on() -> None:
    assert why(Strain()) is None
    assert why(Strain(hottest=Zone("tj-thermal", 85.0), cpu_ratio=0.9), turned_away=10.0) is None


@pytest.mark.parametrize(("celsius", "waiting", "hot"), [(85.1, False, True), (83.0, True, True), (82.0, True, False)])
def test_a_hot_machine_waits_until_it_is_clearly_cooler(celsius: float, waiting: bool, hot: bool) -> None:
    found = why(Strain(hottest=Zone("tj-thermal", celsius)), waiting=waiting)
    assert found == (f"{celsius:.0f} C at tj-thermal, limit 85 C" if hot else None)


def test_a_machine_that_slows_itself_down_waits() -> None:
    found = why(Strain(brakes=("gpu-throttle-alert", "under-voltage"), power_mode="2"))
    assert found == "the machine slows itself down: gpu-throttle-alert, under-voltage (power mode 2)"


def test_an_endpoint_that_turned_requests_away_a_moment_ago_comes_first() -> None:
    assert "its queue is full" in (why(Strain(), turned_away=9.9) or "")


def test_busy_processors_are_a_reason_where_the_operator_says_so() -> None:
    assert why(Strain(cpu_ratio=0.95)) == "processors are 95% busy, limit 90%"
    assert hindrance(Strain(cpu_ratio=1.0), UpdateSettings(), turned_away_seconds=None, waiting=False) is None
