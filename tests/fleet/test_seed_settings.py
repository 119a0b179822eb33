"""Keys and defaults that were promised: each is there, and something reads it."""

import ast
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fleet.parts import listening, opened
from fleet.settings import FleetSettings
from tests.architecture.test_modules import MODULES, tree_of
from tests.fleet.conftest import settings_in

PROMISED: dict[str, Any] = {
    "deployment.max_concurrent_deployments": 5,
    "deployment.deployment_timeout_minutes": 30,
    "deployment.heartbeat_interval_seconds": 60,
    "deployment.performance_monitoring_interval_minutes": 15,
    "deployment.auto_rollback_on_failure": True,
    "monitoring.performance_degradation_threshold": 0.1,
    "monitoring.error_rate_threshold": 0.05,
    "monitoring.latency_threshold_ms": 1000,
    "monitoring.memory_usage_threshold": 0.8,
    "drift_detection.monitoring_interval_hours": 6,
    "drift_detection.baseline_window_days": 7,
    "drift_detection.detection_window_days": 1,
    "drift_detection.min_samples_for_detection": 100,
    "drift_detection.enable_statistical_tests": True,
    "thresholds.performance_drift.accuracy_threshold": 0.05,
    "thresholds.performance_drift.precision_threshold": 0.05,
    "thresholds.performance_drift.recall_threshold": 0.05,
    "thresholds.performance_drift.latency_threshold": 0.2,
    "thresholds.statistical_drift.psi_threshold": 0.2,
    "thresholds.statistical_drift.kl_divergence_threshold": 0.1,
    "thresholds.statistical_drift.js_divergence_threshold": 0.1,
    "thresholds.severity_levels.low": 0.05,
    "thresholds.severity_levels.medium": 0.1,
    "thresholds.severity_levels.high": 0.2,
    "thresholds.severity_levels.critical": 0.3,
    "alerts.enable_notifications": True,
    "alerts.notification_channels": ("email", "webhook"),
    "alerts.escalation_hours": 24,
    "alerts.auto_trigger_retraining": False,
}


@cache
def read() -> frozenset[str]:
    """Names of attributes that the manager's code reads."""
    return frozenset(
        node.attr
        for name, path in MODULES.items()
        if name.startswith("fleet.") and name != "fleet.settings"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
    )


@pytest.mark.parametrize("key", PROMISED)
def test_a_promised_key_has_its_default_and_is_read(key: str) -> None:
    found: Any = FleetSettings()
    for part in key.split("."):
        found = getattr(found, part)
    assert found == PROMISED[key]
    assert key.rpartition(".")[2] in read()


@pytest.mark.parametrize(("seconds", "away"), [(60, False), (10, True)])
async def test_a_device_is_away_after_three_heartbeats_of_silence(tmp_path: Path, seconds: int, away: bool) -> None:
    settings = settings_in(tmp_path, deployment={"heartbeat_interval_seconds": seconds})
    async with AsyncExitStack() as stack:
        manager, _ = await stack.enter_async_context(opened(settings, stack.enter_context(listening(settings))))
        now = manager.clock.now()
        assert manager.patience.away(now, now + timedelta(seconds=40)) == away
