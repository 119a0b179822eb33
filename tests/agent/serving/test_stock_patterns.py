"""What examples of the stock client do (`simple_*`, but for CUDA and sequences), by HTTP, gRPC and shared memory."""

import asyncio
import os
import queue
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from shared.manifest import Tensor
from tests.agent.serving.kit import Running, endpoint, model_file, save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc
    import tritonclient.grpc.aio
    import tritonclient.http
    import tritonclient.http.aio
    from tritonclient.utils import InferenceServerException, serialize_byte_tensor, shared_memory

pytestmark = pytest.mark.filterwarnings("ignore")

WAYS = pytest.mark.parametrize("way", ["http", "grpc"])
A, B = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
TEXT = {"A": np.array([str(value).encode() for value in A[0]], object).reshape(1, 16)}
BYTES = A.nbytes


def tensors(datatype: str, side: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(name=f"{side}{at}", datatype=datatype, shape=(1, 16)) for at in range(2))


def save_simple(path: Path) -> None:
    """Sum and difference of two rows."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    save_model(path, nodes, inputs=tensors("INT32", "INPUT"), outputs=tensors("INT32", "OUTPUT"))


def save_simple_string(path: Path) -> None:
    """The same with numbers as text."""
    nodes = [helper.make_node("Cast", [f"INPUT{at}"], [f"n{at}"], to=TensorProto.INT32) for at in range(2)]
    for at, kind in enumerate(("Add", "Sub")):
        nodes.append(helper.make_node(kind, ["n0", "n1"], [f"m{at}"]))
        nodes.append(helper.make_node("Cast", [f"m{at}"], [f"OUTPUT{at}"], to=TensorProto.STRING))
    save_model(path, nodes, inputs=tensors("BYTES", "INPUT"), outputs=tensors("BYTES", "OUTPUT"))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with endpoint(tmp_path, grpc_port=0, shared_memory="loopback") as found:
        for name, save, datatype in (("simple", save_simple, "INT32"), ("simple_string", save_simple_string, "BYTES")):
            path = tmp_path / f"{name}.onnx"
            save(path)
            sides = {"inputs": tensors(datatype, "INPUT"), "outputs": tensors(datatype, "OUTPUT")}
            await found.serving.load(model_file(path, "1", model=name, **sides))
            await found.serving.route(name, "1")
        yield found


@dataclass
class Way:
    """One of the two protocols."""

    running: Running
    name: str

    @property
    def triton(self) -> ModuleType:
        return tritonclient.http if self.name == "http" else tritonclient.grpc

    @property
    def address(self) -> str:
        return self.running.url if self.name == "http" else str(self.running.endpoints.grpc)

    async def visit(self, check: Callable[["Way", Any], None], **settings: Any) -> None:
        def there() -> None:
            with self.triton.InferenceServerClient(self.address, **settings) as client:
                check(self, client)

        await asyncio.to_thread(there)

    def inputs(self, arrays: Mapping[str, np.ndarray], datatype: str, **how: Any) -> list[Any]:
        made = []
        for name, array in arrays.items():
            tensor = self.triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array, **how)
            made.append(tensor)
        return made

    def outputs(self, **how: Any) -> list[Any]:
        return [self.triton.InferRequestedOutput(f"OUTPUT{at}", **how) for at in range(2)]


def right(answer: Any) -> None:
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), A + B)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), A - B)


PAIR = {"INPUT0": A, "INPUT1": B}


@WAYS
async def test_infer_with_and_without_named_outputs_and_with_compression(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        right(client.infer("simple", way.inputs(PAIR, "INT32"), outputs=way.outputs()))
        right(client.infer("simple", way.inputs(PAIR, "INT32")))
        one = client.infer("simple", way.inputs(PAIR, "INT32"), outputs=way.outputs()[:1])
        assert one.as_numpy("OUTPUT1") is None
        if way.name == "grpc":
            right(client.infer("simple", way.inputs(PAIR, "INT32"), compression_algorithm="gzip"))
            return
        more = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
        right(client.infer("simple", way.inputs(PAIR, "INT32"), **more))
        mixed = [
            *way.inputs({"INPUT0": A}, "INT32", binary_data=False),
            *way.inputs({"INPUT1": B}, "INT32", binary_data=True),
        ]
        named = [way.outputs(binary_data=True)[0], way.outputs(binary_data=False)[1]]
        right(client.infer("simple", mixed, outputs=named, query_params={"test_1": 1}, headers={"test": "1"}))

    await Way(running, way).visit(check)


@WAYS
async def test_async_infer(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        if way.name == "http":
            asked = [client.async_infer("simple", way.inputs(PAIR, "INT32"), request_id=str(at)) for at in range(8)]
            for one in asked:
                right(one.get_result())
            return
        got: queue.Queue[tuple[Any, Any]] = queue.Queue()
        for _ in range(8):
            client.async_infer("simple", way.inputs(PAIR, "INT32"), lambda result, error: got.put((result, error)))
        for _ in range(8):
            result, error = got.get(timeout=10)
            assert error is None
            right(result)

    settings = {"concurrency": 4} if way == "http" else {}
    await Way(running, way).visit(check, **settings)


@WAYS
async def test_the_client_of_asyncio(running: Running, way: str) -> None:
    here = Way(running, way)
    async with here.triton.aio.InferenceServerClient(here.address) as client:
        assert await client.is_server_ready()
        right(await client.infer("simple", here.inputs(PAIR, "INT32"), outputs=here.outputs()))
        with pytest.raises(InferenceServerException, match="unexpected inference input 'OTHER' for model 'simple'"):
            await client.infer("simple", here.inputs({"OTHER": A, "INPUT1": B}, "INT32"))


@WAYS
async def test_strings(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        for kind in (np.object_, np.bytes_):
            arrays = {"INPUT0": TEXT["A"].astype(kind), "INPUT1": np.full((1, 16), b"1", kind)}
            answer = client.infer("simple_string", way.inputs(arrays, "BYTES"), outputs=way.outputs())
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT0").astype(np.int32), A + B)
            np.testing.assert_array_equal(answer.as_numpy("OUTPUT1").astype(np.int32), A - B)

    await Way(running, way).visit(check)


@WAYS
async def test_objects_are_used_again(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        inputs, outputs = way.inputs(PAIR, "INT32"), way.outputs()
        for _ in range(3):
            right(client.infer("simple", inputs, outputs=outputs))
        inputs[0].set_data_from_numpy(B)
        np.testing.assert_array_equal(client.infer("simple", inputs).as_numpy("OUTPUT0"), B + B)

    await Way(running, way).visit(check)


@WAYS
async def test_health_and_metadata(running: Running, way: str) -> None:
    def check(_: Way, client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'wrong' is not found"):
            client.get_model_metadata("wrong")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'wrong' is not found"):
            client.get_model_config("wrong")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'wrong' is not found"):
            client.get_inference_statistics("wrong")

    await Way(running, way).visit(check)


@WAYS
async def test_model_control_is_refused_with_a_reason(running: Running, way: str) -> None:
    def check(_: Way, client: Any) -> None:
        for call in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="versions come as signed releases from the manager"):
                call("simple")
        assert client.is_model_ready("simple")

    await Way(running, way).visit(check)


async def test_grpc_with_keep_alive_and_channel_arguments(running: Running) -> None:
    options = tritonclient.grpc.KeepAliveOptions(
        keepalive_time_ms=2**31 - 1,
        keepalive_timeout_ms=20000,
        keepalive_permit_without_calls=False,
        http2_max_pings_without_data=2,
    )
    here = Way(running, "grpc")
    await here.visit(
        lambda way, client: right(client.infer("simple", way.inputs(PAIR, "INT32"))), keepalive_options=options
    )
    arguments = [("grpc.primary_user_agent", "cameras")]
    await here.visit(
        lambda way, client: right(client.infer("simple", way.inputs(PAIR, "INT32"))), channel_args=arguments
    )


# Shared memory


@contextmanager
def region(client: Any, name: str, size: int) -> Iterator[Any]:
    """Made, registered, unregistered and removed, as the examples do it."""
    handle = shared_memory.create_shared_memory_region(name, f"/test-{os.getpid()}-{name}", size)
    try:
        client.register_system_shared_memory(name, f"/test-{os.getpid()}-{name}", size)
        yield handle
        client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(handle)


@WAYS
async def test_shared_memory_for_inputs_and_outputs(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        with ExitStack() as stack:
            given = stack.enter_context(region(client, "input_data", 2 * BYTES))
            taken = stack.enter_context(region(client, "output_data", 2 * BYTES))
            shared_memory.set_shared_memory_region(given, [A])
            shared_memory.set_shared_memory_region(given, [B], offset=BYTES)
            inputs = [way.triton.InferInput(f"INPUT{at}", [1, 16], "INT32") for at in range(2)]
            outputs = way.outputs() if way.name == "grpc" else way.outputs(binary_data=True)
            for at in range(2):
                inputs[at].set_shared_memory("input_data", BYTES, offset=at * BYTES)
                outputs[at].set_shared_memory("output_data", BYTES, offset=at * BYTES)
            answer = client.infer("simple", inputs, outputs=outputs)
            told = answer.get_output("OUTPUT0")
            shape, datatype = (
                (told["shape"], told["datatype"]) if way.name == "http" else (list(told.shape), told.datatype)
            )
            assert (shape, datatype) == ([1, 16], "INT32")
            found = [
                shared_memory.get_contents_as_numpy(taken, np.int32, [1, 16], offset=at * BYTES) for at in range(2)
            ]
            np.testing.assert_array_equal(found[0], A + B)
            np.testing.assert_array_equal(found[1], A - B)
            shared_memory.set_shared_memory_region(given, [B])  # the next frame, in the same place
            client.infer("simple", inputs, outputs=outputs)
            np.testing.assert_array_equal(found[0], B + B)
            del found
            right_again = client.infer("simple", [inputs[0], *way.inputs({"INPUT1": A}, "INT32")])
            np.testing.assert_array_equal(right_again.as_numpy("OUTPUT0"), A + B)
            status = client.get_system_shared_memory_status(**({} if way.name == "http" else {"as_json": True}))
            names = {row["name"] for row in status} if way.name == "http" else set(status["regions"])
            assert names == {"input_data", "output_data"}
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'input_data'"):
            client.infer("simple", inputs, outputs=outputs)

    await Way(running, way).visit(check)


@WAYS
async def test_shared_memory_for_strings(running: Running, way: str) -> None:
    def check(way: Way, client: Any) -> None:
        raws = [serialize_byte_tensor(array) for array in (TEXT["A"], np.full((1, 16), b"1", np.object_))]
        sizes = [len(raw.item()) for raw in raws]
        room = 16 * 8
        with ExitStack() as stack:
            given = stack.enter_context(region(client, "strings_in", sum(sizes)))
            taken = stack.enter_context(region(client, "strings_out", 2 * room))
            shared_memory.set_shared_memory_region(given, raws[:1])
            shared_memory.set_shared_memory_region(given, raws[1:], offset=sizes[0])
            inputs = [way.triton.InferInput(f"INPUT{at}", [1, 16], "BYTES") for at in range(2)]
            inputs[0].set_shared_memory("strings_in", sizes[0])
            inputs[1].set_shared_memory("strings_in", sizes[1], offset=sizes[0])
            outputs = way.outputs() if way.name == "grpc" else way.outputs(binary_data=True)
            for at in range(2):
                outputs[at].set_shared_memory("strings_out", room, offset=at * room)
            client.infer("simple_string", inputs, outputs=outputs)
            for at, expected in enumerate((A + B, A - B)):
                found = shared_memory.get_contents_as_numpy(taken, np.object_, [1, 16], offset=at * room)
                np.testing.assert_array_equal(found.astype(np.int32), expected)

    await Way(running, way).visit(check)
