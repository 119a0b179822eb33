"""Releases that pass every test before the swap and are bad all the same."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fleet.demo import training
from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow


def start_with_good_release(fleet: Fleet) -> None:
    fleet.add_devices("cam-1", "cam-2")
    fleet.publish("1.0.0")
    assert fleet.roll_out("1.0.0")["state"] == "completed"


def is_taken_back(fleet: Fleet, version: str, reason: str) -> None:
    ended = fleet.ended(fleet.start_rollout(version, waves="1,100%"))
    assert ended["state"] == "rolled-back", ended["reason"]
    assert reason in json.dumps(ended)
    touched = [it for it in ended["deployments"] if it["touched"]]
    assert len(touched) == 1
    assert {fleet.serving("cam-1"), fleet.serving("cam-2")} == {"1.0.0"}
    assert [camera.tally.failed for camera in fleet.cameras] == [0, 0]


def test_a_release_that_answers_wrongly_is_rolled_back_by_the_device_and_the_rollout_stops(fleet: Fleet) -> None:
    start_with_good_release(fleet)
    wrong = training.negative(fleet.digits.train), training.negative(fleet.digits.reference)
    fleet.publish("1.2.0", pictures=wrong[0], reference=wrong[1])
    is_taken_back(fleet, "1.2.0", "E_PROBATION_ACCURACY")


def slow(model: bytes) -> bytes:
    """The same answers, after a detour of large matrix products whose result is multiplied by zero."""
    graph = onnx.load_from_string(model)
    size = 700
    square = numpy_helper.from_array(np.eye(size, dtype=np.float32), "square")
    nothing = numpy_helper.from_array(np.float32(0), "nothing")
    last = graph.graph.node[-1]
    last.output[0] = "quick"
    first = helper.make_node("Add", ["square", "mean"], ["p0"])
    detour = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0), first]
    detour += [helper.make_node("MatMul", [f"p{i}", "square"], [f"p{i + 1}"]) for i in range(3)]
    detour += [
        helper.make_node("ReduceMean", ["p3"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "nothing"], ["zero"]),
        helper.make_node("Add", ["quick", "zero"], ["probabilities"]),
    ]
    graph.graph.node.extend(detour)
    graph.graph.initializer.extend([square, nothing])
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def test_a_release_that_answers_slowly_is_rolled_back_by_the_device_and_the_rollout_stops(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_UPDATE__MAX_SELF_TEST_LATENCY_RATIO", "1000000")  # the self-test would notice first
    start_with_good_release(fleet)
    quick = training.train(fleet.digits.train, hidden=24, rounds=100, seed=0)
    fleet.publish_bytes("1.2.0", slow(quick), fleet.digits.reference)
    is_taken_back(fleet, "1.2.0", "E_PROBATION_LATENCY")
