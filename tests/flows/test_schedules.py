"""A real manager and a real agent: ready before the window, taken back at once, and a schedule that keeps its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow


def test_a_device_waits_for_its_window_and_a_schedule_keeps_its_time(fleet: Fleet) -> None:
    fleet.add_devices("cam-1")
    fleet.publish("1.0.0")
    assert fleet.roll_out("1.0.0")["state"] == "completed"
    fleet.publish("1.1.0")
    asks = fleet.operator.asks
    later = datetime.now(UTC) + timedelta(hours=3)
    window = f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M}"
    rollout = asks("rollout", "start", "digits@1.1.0", "--window", window, "--yes")["id"]

    def waiting() -> dict[str, Any] | None:
        (one,) = fleet.rollout(rollout)["deployments"]
        return one if one["reason"] == "E_WINDOW" else None

    found = fleet.until(waiting)
    assert found["state"] == "self-tested"
    assert f"{later:%H:%M} to " in found["detail"]
    assert fleet.serving("cam-1") == "1.0.0"
    asks("rollout", "abort", rollout, "--rollback", "--yes")
    assert fleet.ended(rollout)["state"] == "rolled-back"
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    schedule = asks("schedule", "add", "digits@1.1.0", "--at", at, "--any-time", "--waves", "100%", "--bake", "1s")
    ended = fleet.until(
        lambda: done if (done := asks("schedule", "show", schedule["id"]))["state"] == "completed" else None
    )
    assert fleet.rollout(ended["rollout"])["counts"]["committed"] == 1
    assert fleet.serving("cam-1") == "1.1.0"
    assert asks("model", "alias", "digits", "stable", "1.1.0")["schedule"] is not None
