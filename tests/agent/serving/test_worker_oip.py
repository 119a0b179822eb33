"""The codec alone: any bytes give a call or a text for the client."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.serving.worker_oip import Codec
from agent.serving.worker_session import NUMPY
from agent.serving.worker_tensors import BadRequestError


def spec(name: str, datatype: str, shape: tuple[int, ...]) -> Any:
    return SimpleNamespace(name=name, datatype=datatype, dtype=NUMPY[datatype], shape=shape)


CODEC = Codec("m", "1", [spec("x", "FP32", (-1, 2)), spec("n", "INT32", (1,))], [spec("y", "FP32", (-1, 2))])
ONE = Codec("m", "1", [spec("x", "FP32", (-1, 2))], [spec("y", "FP32", (-1, 2))])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "n"]) | JSON,
        "datatype": st.sampled_from(["FP32", "INT32"]) | JSON,
        "shape": st.sampled_from([[1, 2], [1], [0, 2]]) | JSON,
    },
    optional={"data": st.lists(st.floats() | st.integers(), max_size=3) | JSON, "parameters": JSON},
)
DOCUMENT = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRY, max_size=3) | JSON},
    optional={"outputs": JSON | st.lists(ENTRY, max_size=2), "id": JSON, "parameters": JSON},
)


@given(st.binary(max_size=60), st.none() | st.integers(0, 60))
def test_any_bytes_give_a_call_or_a_bad_request(data: bytes, split: int | None) -> None:
    for codec in (CODEC, ONE):
        try:
            codec.parse(memoryview(data), None if split is None else min(split, len(data)))
        except BadRequestError:
            continue


@given(DOCUMENT, st.binary(max_size=16))
def test_any_document_gives_a_call_or_a_bad_request(document: Any, tail: bytes) -> None:
    header = json.dumps(document).encode()
    for codec in (CODEC, ONE):
        try:
            call = codec.parse(memoryview(header + tail), len(header))
        except BadRequestError:
            continue
        assert call.inputs["x"].shape[1:] == (2,)
        assert call.inputs["x"].dtype == np.float32


def test_json_and_binary_inputs_mix() -> None:
    entries = [
        {"name": "n", "datatype": "INT32", "shape": [1], "data": [7]},
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]
    header = json.dumps({"inputs": entries}).encode()
    call = CODEC.parse(memoryview(header + np.array([1, 2], np.float32).tobytes()), len(header))
    assert call.inputs["x"].tolist() == [[1.0, 2.0]]
    assert call.inputs["n"].tolist() == [7]
    with pytest.raises(BadRequestError, match="additional input data"):
        CODEC.parse(memoryview(header + b"0" * 12), len(header))


@pytest.mark.parametrize("value", [1.5, 2**31, True, "1", None])
def test_a_number_that_does_not_fit_is_not_bent(value: Any) -> None:
    entries = [
        {"name": "n", "datatype": "INT32", "shape": [1], "data": [value]},
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
    ]
    with pytest.raises(BadRequestError, match="not all INT32"):
        CODEC.parse(memoryview(json.dumps({"inputs": entries}).encode()), None)


def test_a_text_names_the_request_it_is_about() -> None:
    with pytest.raises(BadRequestError, match=r"^\[request id: q7\] expected 2 inputs but got 0 inputs"):
        CODEC.parse(memoryview(b'{"id": "q7", "inputs": []}'), None)


def test_outputs_go_out_as_they_were_asked_for() -> None:
    body = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    call = ONE.parse(memoryview(json.dumps(body).encode()), None)
    header, tail = ONE.reply(call, {"y": np.array([[3, 4]], np.float32)})
    assert json.loads(header)["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    ]
    assert np.frombuffer(tail[0], np.float32).tolist() == [3, 4]
    with pytest.raises(BadRequestError, match="unexpected inference output 'z' for model 'm'"):
        ONE.parse(memoryview(json.dumps({**body, "outputs": [{"name": "z"}]}).encode()), None)


VALUES = np.arange(4, dtype=np.float32).reshape(2, 2)


def body(request_id: str | None, *, shape: tuple[int, int] = (2, 2), size: int = 16, last: bool = False) -> bytes:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    document: dict[str, Any] = {"inputs": [entry], "parameters": {"binary_data_output": True}}
    if request_id is not None:
        document = document | {"id": request_id} if last else {"id": request_id} | document
    return json.dumps(document, separators=(",", ":")).encode()


@given(st.lists(st.tuples(st.none() | st.text(max_size=6), st.booleans()), min_size=2, max_size=6))
def test_a_head_seen_before_means_the_same_again(ids: list[tuple[str | None, bool]]) -> None:
    codec = Codec("m", "1", [spec("x", "FP32", (-1, 2))], [spec("y", "FP32", (-1, 2))])
    for factor, (request_id, last) in enumerate(ids):
        head = body(request_id, last=last)
        values = VALUES * factor
        call = codec.parse(memoryview(head + values.tobytes()), len(head))
        assert call.request_id == (request_id or "")
        np.testing.assert_array_equal(call.inputs["x"], values)
        header, tail = codec.reply(call, {"y": values})
        told = json.loads(header)
        assert told.get("id", "") == (request_id or "")
        assert told["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
        ]
        assert b"".join(tail) == values.tobytes()


def test_a_known_head_with_another_length_is_refused_as_ever() -> None:
    head = body(None)
    ONE.parse(memoryview(head + VALUES.tobytes()), len(head))
    for tail in (VALUES.tobytes()[:-4], VALUES.tobytes() + b"1234"):
        with pytest.raises(BadRequestError, match=r"unexpected (end|additional)"):
            ONE.parse(memoryview(head + tail), len(head))


def test_heads_are_forgotten_before_they_are_many() -> None:
    codec = Codec("m", "1", [spec("x", "FP32", (-1, 2))], [spec("y", "FP32", (-1, 2))])
    for rows in range(1, 200):
        values = np.ones((rows, 2), np.float32)
        head = body(None, shape=values.shape, size=values.nbytes)
        call = codec.parse(memoryview(head + values.tobytes()), len(head))
        assert call.inputs["x"].shape == values.shape
    assert len(codec._plans) <= 64
