"""A running endpoint, ONNX files made on the spot, and a look at the processes behind them."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from agent.serving.supervisor import Endpoints, ModelFile, Observation, Serving
from agent.settings import ServingSettings
from shared.manifest import Tensor

INPUTS = (Tensor(name="image", datatype="FP32", shape=(-1, 1, 8, 8)),)
OUTPUTS = (Tensor(name="scores", datatype="FP32", shape=(-1, 10)),)
COUNT = (Tensor(name="count", datatype="INT64", shape=()),)
TOTAL = (Tensor(name="total", datatype="FP32", shape=()),)
WIDE = (*COUNT, Tensor(name="x", datatype="FP32", shape=(-1,)))


@dataclass(frozen=True)
class Digits:
    images: np.ndarray  # [n, 1, 8, 8] float32
    labels: np.ndarray


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[Tensor] = INPUTS,
    outputs: Sequence[Tensor] = OUTPUTS,
) -> None:
    graph = helper.make_graph(
        list(nodes), "test", [_value(entry) for entry in inputs], [_value(entry) for entry in outputs], list(weights)
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


_TYPES = {
    "FP32": TensorProto.FLOAT,
    "INT64": TensorProto.INT64,
    "BYTES": TensorProto.STRING,
    "INT32": TensorProto.INT32,
}


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    shape = [f"free{at}" if size == -1 else size for at, size in enumerate(tensor.shape)]
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.datatype], shape)


def loop_model(folder: Path) -> Path:
    """A model `loop` that counts to its input: for ever, if that is large."""
    path = folder / "loop.onnx"
    save_model(path, counting("total"), inputs=COUNT, outputs=TOTAL)
    return path


def wide_model(folder: Path) -> Path:
    """A model `wide` that counts to its first input before it looks at its second."""
    path = folder / "wide.onnx"
    nodes = [
        *counting("counted"),
        helper.make_node("Add", ["x", "counted"], ["more"]),
        helper.make_node("ReduceSum", ["more"], ["total"], keepdims=0),
    ]
    save_model(path, nodes, inputs=WIDE, outputs=TOTAL)
    return path


def counting(output: str) -> list[onnx.NodeProto]:
    """Nodes that count to the input `count`, one step after the other."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["cond_out"]),
            helper.make_node("Sqrt", ["value"], ["value_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, []),
        ],
    )
    return [
        helper.make_node("Constant", [], ["true"], value=helper.make_tensor("t", TensorProto.BOOL, [], [1])),
        helper.make_node("Constant", [], ["start"], value=helper.make_tensor("s", TensorProto.FLOAT, [], [2.0])),
        helper.make_node("Loop", ["count", "true", "start"], [output], body=body),
    ]


def model_file(
    path: Path,
    version: str,
    *,
    model: str = "digits",
    inputs: tuple[Tensor, ...] = INPUTS,
    outputs: tuple[Tensor, ...] = OUTPUTS,
) -> ModelFile:
    return ModelFile(model, version, "a", path, inputs, outputs, ("CPUExecutionProvider",))


@dataclass
class Running:
    """A serving endpoint and what it told."""

    serving: Serving
    endpoints: Endpoints
    seen: list[Observation] = field(default_factory=list)
    start_seconds: float = 0.0

    def within(self, seconds: float) -> float:
        """This limit; where other things run beside the test, four times what the start took."""
        return max(seconds, 4 * self.start_seconds)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.endpoints.http_port}"

    async def until(self, happened: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not happened():  # noqa: ASYNC110 - processes give no event
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def endpoint(state_dir: Path, **settings: object) -> AsyncIterator[Running]:
    seen: list[Observation] = []
    chosen = ServingSettings.model_validate({"http_port": 0, "grpc_port": None, **settings})
    serving = Serving(chosen, state_dir=state_dir, observe=seen.extend)
    began = time.monotonic()
    task = asyncio.create_task(serving.run())
    try:
        endpoints = await asyncio.wait_for(serving.started(), 60)
        yield Running(serving, endpoints, seen, time.monotonic() - began)
    finally:
        task.cancel()
        await asyncio.wait([task])


def children_of(pid: int) -> dict[int, str]:
    """Process id -> command line of all living descendants."""
    found: dict[int, str] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if stat[0] != "Z":
                    parents[int(entry.name)] = int(stat[1])
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        for child in frontier:
            with contextlib.suppress(OSError):
                found[child] = (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ")
    return found


def pids(part: str) -> list[int]:
    """Our direct children whose command line names `part`."""
    found = [pid for pid, line in children_of(os.getpid()).items() if f"'agent.serving.{part}'" in line]
    return [pid for pid in found if pid not in worker_pids()]  # a fork keeps the command line


def worker_pids() -> list[int]:
    everyone = children_of(os.getpid())
    return [child for pid, line in everyone.items() if "fork_server" in line for child in children_of(pid)]
