"""Reading an answer back, and what counts as agreement."""

import json
from typing import Any

import numpy as np
import pytest

from agent.serving import worker_shadow_wire as wire
from agent.serving.worker_compare import Found, Tolerance, compare, read
from agent.serving.worker_oip import Call, Codec, Wanted
from agent.serving.worker_session import Spec

NEAR = Tolerance(absolute=0.01, relative=0.1)
SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], np.float32)


def test_class_scores_agree_where_the_class_is_the_same_row_by_row() -> None:
    other = np.array([[0.2, 0.8], [0.3, 0.7], [0.1, 0.9]], np.float32)
    found = compare({"scores": SCORES}, {"scores": other}, NEAR)
    assert found is not None
    assert found[:2] == (3, 2)
    assert found.difference == pytest.approx(0.5)


def test_numbers_agree_within_the_tolerance_and_the_request_is_one_sample() -> None:
    served = {"y": np.array([10.0, -1.0], np.float32)}
    assert compare(served, {"y": np.array([10.9, -1.0], np.float32)}, NEAR) == Found(1, 1, pytest.approx(0.9))
    assert compare(served, {"y": np.array([11.2, -1.0], np.float32)}, NEAR) == Found(1, 0, pytest.approx(1.2))


@pytest.mark.parametrize(
    ("served", "own", "agreed"),
    [
        (np.array(["cat", "dog"], object), np.array([b"cat", b"dog"], object), 1),
        (np.array(["cat"], object), np.array(["dog"], object), 0),
        (np.zeros((1, 5, 4)), np.zeros((1, 6, 4)), 0),  # other numbers of boxes
        (np.array([3], np.int64), np.array([3], np.int64), 1),
        (np.array([True, False]), np.array([True, True]), 0),
    ],
)
def test_text_must_be_equal_and_shapes_the_same(served: np.ndarray, own: np.ndarray, agreed: int) -> None:
    found = compare({"y": served}, {"y": own}, NEAR)
    assert found is not None
    assert (found.samples, found.agreed) == (1, agreed)


def test_outputs_that_the_client_did_not_ask_for_are_not_compared() -> None:
    served = {"y": np.array([1.0])}
    own = {"y": np.array([1.0]), "scores": SCORES}
    assert compare(served, own, NEAR) == Found(1, 1, 0.0)
    assert compare({}, own, NEAR) is None


def test_scores_of_another_form_never_agree() -> None:
    for served in (SCORES[:2], SCORES.ravel()):
        found = compare({"scores": served}, {"scores": SCORES}, NEAR)
        assert found is not None
        assert (found.samples, found.agreed) == (3, 0)


@pytest.mark.parametrize(("binary", "classes"), [(False, 0), (True, 0), (False, 2), (True, 2)])
def test_every_form_of_an_answer_is_read_back(binary: bool, classes: int) -> None:
    outputs = [Spec("scores", "FP32", (-1, 2)), Spec("name", "BYTES", (-1,))]
    results = {"scores": SCORES, "name": np.array(["a", "b", "ü"], object)}
    wanted = [Wanted("scores", binary, classes), Wanted("name", binary)]
    head, tail = Codec("digits", "1", [], outputs).reply(Call("", {}, wanted), results)
    body = b"".join([head, *(bytes(part) for part in tail)])
    found = read(body, len(head) if tail else None, outputs)
    assert found["name"].tolist() == ["a", "b", "ü"]
    agreed = compare({"scores": found["scores"]}, {"scores": SCORES}, NEAR)
    assert agreed is not None
    assert agreed[:2] == (3, 3)


def test_an_output_in_memory_of_the_client_is_left_out() -> None:
    document: dict[str, Any] = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]}
    assert read(json.dumps(document).encode(), None, [Spec("y", "FP32", (1,))]) == {}


def test_messages_come_out_as_they_went_in() -> None:
    look = wire.Look(2**40, 3, 64, 2**33, 17, 2**33, 5, 12.5)
    assert wire.unpack_look(wire.pack_look(look)) == look
    seen = wire.Seen(wire.COMPARED, 2**40, 7, 6, 1234, 0.25)
    assert wire.unpack_seen(wire.pack_seen(seen)) == seen
    assert max(len(wire.pack_look(look)), len(wire.pack_seen(seen))) <= wire.MESSAGE
