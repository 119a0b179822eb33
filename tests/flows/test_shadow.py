"""A fleet whose devices let a release look on before it serves: manager, agents and cameras are real processes."""

from typing import Any

import pytest

from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow

TERMS = "share=100%,samples=40,agreement=80%,latency=50,load=100%,time=20s,stay"


def shadow_gate(found: dict[str, Any]) -> dict[str, Any]:
    (gate,) = (gate for gate in found["gates"] if gate["name"] == "shadow agreement")
    return dict(gate)


def test_a_release_looks_on_until_it_is_promoted_and_no_request_fails(fleet: Fleet) -> None:
    fleet.add_devices("cam-1")
    fleet.publish("1.0.0")
    assert fleet.roll_out("1.0.0")["state"] == "completed"

    fleet.publish("1.1.0")
    rollout = fleet.start_rollout("1.1.0", "--shadow", TERMS, "--min-agreement", "50")
    looking = fleet.until(lambda: found if shadow_gate(found := fleet.rollout(rollout))["result"] == "pass" else None)
    assert looking["deployments"][0]["state"] == "shadowing"
    assert fleet.serving("cam-1") == "1.0.0"
    fleet.operator.asks("rollout", "promote", rollout, "--yes")
    ended = fleet.ended(rollout)
    assert ended["state"] == "completed", ended["reason"]
    assert shadow_gate(ended)["value"] > 0.8
    assert fleet.serving("cam-1") == "1.1.0"
    assert fleet.cameras[0].tally.failed == 0
