"""The code in docs/serving.md does what the page says."""

import asyncio
import re
import subprocess
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from shared.manifest import Tensor
from tests.agent.serving.kit import Running, endpoint, model_file, save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc
    import tritonclient.http  # noqa: F401 - likewise

pytestmark = pytest.mark.filterwarnings("ignore")

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
IMAGE = (Tensor(name="image", datatype="FP32", shape=(-1, 64)),)
SCORES = (Tensor(name="scores", datatype="FP32", shape=(-1, 10)),)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    path = tmp_path / "digits.onnx"
    weights = np.zeros((64, 10), np.float32)
    weights[:, 7] = 1.0
    nodes = [helper.make_node("MatMul", ["image", "w"], ["scores"])]
    save_model(path, nodes, [numpy_helper.from_array(weights, "w")], inputs=IMAGE, outputs=SCORES)
    async with endpoint(tmp_path, grpc_port=0, shared_memory="loopback") as found:
        await found.serving.load(model_file(path, "1.0.0", inputs=IMAGE, outputs=SCORES))
        await found.serving.route("digits", "1.0.0")
        yield found


async def test_the_python_on_the_page_runs(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        "frames": np.full((3, 64), 0.5, np.float32),
        "address": running.url,
        "grpc_address": running.endpoints.grpc,
    }
    for code in blocks("python"):
        await asyncio.to_thread(exec, code, dict(names))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{number} 7 1.0.0" for number in range(3)] * 3 + [
        "{'id': 'frame-0', 'model_version': '1.0.0', 'correct': True}"
    ]


async def test_the_commands_on_the_page_run(running: Running) -> None:
    (commands,) = blocks("sh")
    where = f"HTTP=http://{running.url} UDS={running.endpoints.uds_path} PIXELS={','.join(['0.5'] * 64)}\n"
    script = ["bash", "-e", "-c", where + commands.replace("curl ", "curl -sSf ")]
    done = await asyncio.to_thread(subprocess.run, script, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert '"platform":"onnxruntime_onnx"' in done.stdout
    assert '"model_version":"1.0.0"' in done.stdout
