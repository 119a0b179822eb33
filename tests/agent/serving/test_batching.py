"""A model whose waiting requests are joined, in a running endpoint."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shared.manifest import Tensor
from tests.agent.serving.kit import Digits, Running, endpoint, model_file, save_model
from tests.bench import load

JOINED = {"models": {"digits": {"max_batch_rows": 8, "batch_delay_microseconds": 3000}}}
WHICH = (Tensor(name="which", datatype="INT64", shape=(-1,)),)
VALUE = (Tensor(name="value", datatype="FP32", shape=(-1,)),)


def answers(running: Running, requests: list[bytes]) -> list[tuple[int, dict[str, Any], np.ndarray]]:
    """Status, JSON part and float32 binary part of each, asked at once over connections of their own."""

    def ask(request: bytes) -> tuple[int, dict[str, Any], np.ndarray]:
        client = load.Client(running.url)
        try:
            status, body = client.ask(request), client.body
            split = json_bytes(client.head, len(body))
            return status, json.loads(body[:split]), np.frombuffer(body[split:], np.float32)
        finally:
            client.close()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def json_bytes(head: bytes, size: int) -> int:
    found = head.lower().partition(b"inference-header-content-length:")[2].partition(b"\r\n")[0]
    return int(found) if found else size


def document(running: Running, path: str) -> dict[str, Any]:
    client = load.Client(running.url)
    assert client.ask(load.http(path)) == 200
    found: dict[str, Any] = json.loads(client.body)
    client.close()
    return found


async def test_joined_answers_equal_single_ones_and_are_counted(
    tmp_path: Path, digits_model: Path, digits: Digits
) -> None:
    async with endpoint(tmp_path, **JOINED) as running:
        await running.serving.load(model_file(digits_model, "1"))
        await running.serving.route("digits", "1")
        rows = [digits.images[at : at + 1 + at % 3] for at in range(12)]
        single = [(await anyio.to_thread.run_sync(answers, running, [ask(entry)]))[0] for entry in rows]
        joined = await anyio.to_thread.run_sync(answers, running, [ask(entry) for entry in rows])
        for one, other in zip(single, joined, strict=True):
            assert one[0] == other[0] == 200
            assert one[1] == other[1]
            np.testing.assert_allclose(one[2], other[2], rtol=1e-4, atol=1e-6)
        (stats,) = (await anyio.to_thread.run_sync(document, running, "/v2/models/digits/stats"))["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == 24
        assert stats["inference_count"] == 2 * sum(map(len, rows))
        assert stats["execution_count"] < 24
        batches = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in stats["batch_stats"]}
        assert sum(batches.values()) == stats["execution_count"]
        assert sum(rows * count for rows, count in batches.items()) == stats["inference_count"]
        config = await anyio.to_thread.run_sync(document, running, "/v2/models/digits/config")
        assert config["max_batch_size"] == 8
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 3000
        assert [entry["dims"] for entry in config["input"]] == [[1, 8, 8]]
        metadata = await anyio.to_thread.run_sync(document, running, "/v2/models/digits")
        assert metadata["inputs"][0]["shape"] == [-1, 1, 8, 8]
        await running.until(lambda: len(running.seen) == 24)  # features of every request


def ask(images: np.ndarray) -> bytes:
    return load.infer("digits", {"image": images})


async def test_a_bad_request_in_a_batch_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.onnx"  # looks a value up: an index out of range fails the whole run
    values = numpy_helper.from_array(np.arange(4, dtype=np.float32), "values")
    node = helper.make_node("Gather", ["values", "which"], ["value"], axis=0)
    save_model(path, [node], [values], inputs=WHICH, outputs=VALUE)
    settings = {"models": {"table": {"max_batch_rows": 8, "batch_delay_microseconds": 20_000}}}
    async with endpoint(tmp_path / "d", **settings) as running:
        await running.serving.load(model_file(path, "1", model="table", inputs=WHICH, outputs=VALUE))
        await running.serving.route("table", "1")
        asked = [load.infer("table", {"which": np.array([at], np.int64)}) for at in (0, 1, 99, 3)]
        found = await anyio.to_thread.run_sync(answers, running, asked)
        assert [status for status, _, _ in found] == [200, 200, 500, 200]
        assert [float(values[0]) for status, _, values in found if status == 200] == [0.0, 1.0, 3.0]
        assert "out of bounds" in found[2][1]["error"] or "onnx runtime error" in found[2][1]["error"]


async def test_a_request_that_hangs_its_worker_takes_none_of_its_batch_along(tmp_path: Path) -> None:
    path = tmp_path / "hang.onnx"
    save_model(path, *hang(), inputs=WHICH, outputs=VALUE)
    settings = {
        "request_timeout_seconds": 1.0,
        "models": {"hang": {"max_batch_rows": 8, "batch_delay_microseconds": 20_000}},
    }
    async with endpoint(tmp_path / "d", **settings) as running:
        await running.serving.load(model_file(path, "1", model="hang", inputs=WHICH, outputs=VALUE))
        await running.serving.route("hang", "1")
        asked = [load.infer("hang", {"which": np.array([at], np.int64)}) for at in (1, 2, 10**12, 3)]
        found = await anyio.to_thread.run_sync(answers, running, asked)
        assert [status for status, _, _ in found] == [200, 200, 503, 200]


def hang() -> tuple[list[Any], list[Any]]:
    """Counts to the largest of `which`, then answers zeros: a large number takes for ever."""
    state = helper.make_tensor_value_info("state", TensorProto.INT64, [])
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    after = helper.make_tensor_value_info("after", TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["again"]), helper.make_node("Add", ["state", "turn"], ["after"])],
        "body",
        [turn, going, state],
        [again, after],
    )
    constants = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["which"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "yes", "zero"], ["total"], body=body),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Mul", ["which", "nothing"], ["zeros"]),
        helper.make_node("Cast", ["zeros"], ["value"], to=TensorProto.FLOAT),
    ]
    return nodes, constants
