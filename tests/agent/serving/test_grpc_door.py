"""The gRPC door as stock clients see it, and what its death costs."""

import asyncio
import os
import queue
import signal
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from agent.serving import door
from shared.manifest import Tensor
from tests.agent.serving.kit import Running, children_of, endpoint, model_file, save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.filterwarnings("ignore")

PAIR = tuple(Tensor(name=f"INPUT{at}", datatype="INT32", shape=(1, 16)) for at in range(2))
SUM = tuple(Tensor(name=f"OUTPUT{at}", datatype="INT32", shape=(1, 16)) for at in range(2))
TEXT_IN = (Tensor(name="TEXT", datatype="BYTES", shape=(-1,)),)
TEXT_OUT = (Tensor(name="SAME", datatype="BYTES", shape=(-1,)),)
A, B = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)

Client = triton.InferenceServerClient


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    path, text = tmp_path / "simple.onnx", tmp_path / "text.onnx"
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    save_model(path, nodes, inputs=PAIR, outputs=SUM)
    save_model(text, [helper.make_node("Identity", ["TEXT"], ["SAME"])], inputs=TEXT_IN, outputs=TEXT_OUT)
    async with endpoint(tmp_path, grpc_port=0) as found:
        for file in (
            model_file(path, "1", model="simple", inputs=PAIR, outputs=SUM),
            model_file(text, "1", model="text", inputs=TEXT_IN, outputs=TEXT_OUT),
        ):
            await found.serving.load(file)
            await found.serving.route(file.model, file.version)
        yield found


async def visit(running: Running, check: Callable[[Client], None]) -> None:
    def there() -> None:
        with Client(running.endpoints.grpc or "") as client:
            check(client)

    await asyncio.to_thread(there)


def inputs() -> list[Any]:
    made = []
    for name, array in (("INPUT0", A), ("INPUT1", B)):
        tensor = triton.InferInput(name, [1, 16], "INT32")
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def pids(part: str) -> list[int]:
    return [pid for pid, command in children_of(os.getpid()).items() if f"agent.serving.{part}'" in command]


async def test_stock_client_finds_everything(running: Running) -> None:
    def check(client: Client) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("simple")
        assert client.is_model_ready("simple", "1")
        assert not client.is_model_ready("simple", "7")
        assert client.get_server_metadata(as_json=True)["name"] == "flotilla"
        metadata = client.get_model_metadata("simple", as_json=True)
        assert [entry["name"] for entry in metadata["inputs"]] == ["INPUT0", "INPUT1"]
        config = client.get_model_config("simple", as_json=True)["config"]
        assert config["input"][0]["data_type"] == "TYPE_INT32"
        names = {row["name"] for row in client.get_model_repository_index(as_json=True)["models"]}
        assert names == {"simple", "text"}
        client.infer("simple", inputs())
        stats = client.get_inference_statistics("simple", as_json=True)["model_stats"][0]
        assert int(stats["inference_stats"]["success"]["count"]) == 1
        assert client.get_system_shared_memory_status(as_json=True) == {}
        assert client.get_cuda_shared_memory_status(as_json=True) == {}

    await visit(running, check)


async def test_inference_sync_async_and_streamed(running: Running) -> None:
    def check(client: Client) -> None:
        answer = client.infer("simple", inputs(), request_id="seven", model_version="1")
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), A + B)
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), A - B)
        response = answer.get_response()
        assert (response.id, response.model_name, response.model_version) == ("seven", "simple", "1")

        got: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.async_infer("simple", inputs(), lambda result, error: got.put((result, error)))
        result, error = got.get(timeout=10)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)

        client.start_stream(lambda result, error: got.put((result, error)))
        for number in range(5):
            client.async_stream_infer("simple" if number != 3 else "nobody", inputs(), request_id=str(number))
        answers = [got.get(timeout=10) for _ in range(5)]
        client.stop_stream()
        assert [error is None for _, error in answers] == [True, True, True, False, True]
        assert [result.get_response().id for result, error in answers if error is None] == ["0", "1", "2", "4"]

    await visit(running, check)


async def test_text_typed_contents_and_chosen_outputs(running: Running) -> None:
    def check(client: Client) -> None:
        words = np.array([b"one", "zwölf".encode(), b""], dtype=np.object_)
        tensor = triton.InferInput("TEXT", [3], "BYTES")
        tensor.set_data_from_numpy(words)
        assert client.infer("text", [tensor]).as_numpy("SAME").tolist() == words.tolist()

        request = triton.service_pb2.ModelInferRequest(model_name="simple")
        for name, array in (("INPUT0", A), ("INPUT1", B)):
            entry = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            entry.contents.int_contents.extend(array.ravel().tolist())
        request.outputs.add(name="OUTPUT1")
        answer = client._client_stub.ModelInfer(request)
        assert [entry.name for entry in answer.outputs] == ["OUTPUT1"]
        np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.int32), (A - B).ravel())

        best = client.infer("simple", inputs(), outputs=[triton.InferRequestedOutput("OUTPUT0", class_count=2)])
        assert [entry.decode().split(":")[1] for entry in best.as_numpy("OUTPUT0").ravel()] == ["15", "14"]

    await visit(running, check)


async def test_refusals_carry_status_and_reason(running: Running) -> None:
    wrong = triton.InferInput("INPUT0", [1, 3], "INT32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.int32))

    def check(client: Client) -> None:
        cases: list[tuple[Callable[[], Any], str, str]] = [
            (lambda: client.infer("nobody", inputs()), "NOT_FOUND", "Request for unknown model: 'nobody' is not found"),
            (lambda: client.infer("simple", [wrong]), "INVALID_ARGUMENT", "unexpected shape for input 'INPUT0'"),
            (lambda: client.load_model("simple"), "INVALID_ARGUMENT", "explicit model load / unload is not allowed"),
            (lambda: client.unload_model("simple"), "INVALID_ARGUMENT", "explicit model load / unload is not allowed"),
            (lambda: client.get_model_metadata("nobody"), "NOT_FOUND", "is not found"),
        ]
        for call, status, text in cases:
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert caught.value.status() == f"StatusCode.{status}"
            assert text in str(caught.value)
        mixed = triton.service_pb2.ModelInferRequest(model_name="simple", raw_input_contents=[A.tobytes()])
        entry = mixed.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 16])
        entry.contents.int_contents.append(1)
        with pytest.raises(Exception, match="contents field must not be specified"):
            client._client_stub.ModelInfer(mixed)

    await visit(running, check)


async def test_the_death_of_the_door_touches_nobody_else(running: Running) -> None:
    (before,) = pids("grpc_door")
    workers, fronts = pids("fork_server"), pids("front")
    os.kill(before, signal.SIGKILL)
    await running.until(lambda: bool(pids("grpc_door")) and pids("grpc_door") != [before])

    def check(client: Client) -> None:
        np.testing.assert_array_equal(
            client.infer("simple", inputs(), client_timeout=10, compression_algorithm="gzip").as_numpy("OUTPUT0"), A + B
        )

    async with asyncio.timeout(20):
        while True:
            try:
                await visit(running, check)
                break
            except InferenceServerException:  # it is not open yet, at the address of before
                await asyncio.sleep(0.05)
    assert (pids("fork_server"), pids("front")) == (workers, fronts)


async def test_the_death_of_the_front_is_survived(running: Running) -> None:
    def check(client: Client) -> None:
        client.infer("simple", inputs())
        for pid in pids("front"):
            os.kill(pid, signal.SIGKILL)
        refused: set[str] = set()
        for _ in range(100):
            try:
                answer = client.infer("simple", inputs())
                break
            except InferenceServerException as error:
                refused.add(error.status())
        else:
            pytest.fail("the door does not find the new front")
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), A + B)
        assert refused <= {"StatusCode.UNAVAILABLE"}

    await visit(running, check)


async def test_without_the_packages_only_the_door_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_installed", lambda: False)
    async with endpoint(tmp_path, grpc_port=0) as found:
        assert found.endpoints.grpc is None
        assert pids("grpc_door") == []


async def test_a_door_that_opens_late_is_told_when_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def too_late(_: door.Door) -> str | None:
        return None

    monkeypatch.setattr(door.Door, "settled", too_late)
    async with endpoint(tmp_path, grpc_port=0) as found:
        assert found.endpoints.grpc is None
        address = await found.serving.grpc_opened()
        with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))):
            pass


async def test_a_taken_port_costs_only_the_door(running: Running, tmp_path: Path) -> None:
    taken = int((running.endpoints.grpc or "").rsplit(":", 1)[1])
    second = tmp_path / "second"
    second.mkdir()
    async with endpoint(second, grpc_port=taken) as found:
        assert found.endpoints.grpc is None
        assert found.endpoints.http_port
