"""Joined or not, every request gets the answer it would have had by itself."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.serving.worker_batch import Batching, of, possible
from tests.agent.serving.test_worker_oip import spec

Arrays = Mapping[str, np.ndarray]

REQUESTS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([2, 3]), st.sampled_from(["<f4", "<i4"])), min_size=1, max_size=12
)


def doubled(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 2, "sum": inputs["x"].sum(axis=1)}


@given(REQUESTS, st.integers(2, 6))
def test_every_request_is_answered_once_as_if_alone(kinds: list[tuple[int, int, str]], most: int) -> None:
    asked = [{"x": np.full((rows, width), at, dtype)} for at, (rows, width, dtype) in enumerate(kinds)]
    answered: list[int] = []
    for group in Batching(most, 0).groups(asked):
        assert len(group.members) == 1 or sum(group.rows) <= most
        parts = group.run(doubled)
        assert parts is not None
        for index, part in zip(group.members, parts, strict=True):
            answered.append(index)
            for name, values in doubled(asked[index]).items():
                assert part[name].dtype == values.dtype
                np.testing.assert_array_equal(part[name], values)
    assert sorted(answered) == list(range(len(asked)))


@pytest.mark.parametrize(
    "model",
    [
        lambda inputs: {"y": inputs["x"][:1]},  # not row for row
        lambda inputs: {"y": np.float32(1)},
        lambda inputs: {"y": np.full_like(inputs["x"], np.nan)},
        lambda inputs: {}["y"],
    ],
)
def test_what_cannot_be_split_is_left_to_each_by_itself(model: object) -> None:
    (group,) = Batching(8, 0).groups([{"x": np.ones((2, 2), np.float32)}] * 3)
    assert group.run(model) is None  # type: ignore[arg-type]


def test_requests_whose_inputs_disagree_stay_alone() -> None:
    odd = {"x": np.ones((2, 2)), "n": np.ones((1, 2))}
    assert [group.members for group in Batching(8, 0).groups([odd, odd])] == [[0], [1]]


def test_only_a_free_first_axis_of_everything_can_be_joined() -> None:
    assert possible([(-1, 3), (-1,)])
    assert not possible([(-1, 3), (1,)])
    assert not possible([(-1, 3), ()])
    free, fixed = spec("x", "FP32", (-1, 2)), spec("y", "FP32", (1, 2))
    assert of({"max_batch_rows": 4}, [free], [fixed]) is None
    assert of({"max_batch_rows": 1}, [free], [free]) is None
    made = of({"max_batch_rows": 4, "batch_delay_microseconds": 1500}, [free], [free])
    assert made is not None
    assert (made.most_rows, made.delay_seconds) == (4, 0.0015)
