"""A release whose embedding is watched, at the real endpoint: its worker finds the projection in the slot."""

import asyncio
import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from agent.serving.supervisor import Feedback, Sample
from fleet.releases import embedding
from shared.manifest import Tensor
from shared.probes import embedded
from tests.agent.serving.kit import Running, endpoint, model_file
from tests.simulators import digits

INPUTS = (Tensor(name="image", datatype="FP32", shape=(-1, 8, 8)),)
OUTPUTS = (
    Tensor(name="hidden", datatype="FP32", shape=(-1, 32)),
    Tensor(name="scores", datatype="FP32", shape=(-1, 10)),
)


def post(running: Running, path: str, body: object) -> dict[str, object]:
    asked = urllib.request.Request(f"http://{running.url}/v2/models/digits/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(asked, timeout=20) as answer:
        found: dict[str, object] = json.loads(answer.read() or b"{}")
        return found


@pytest.mark.parametrize("known", [True, False])
async def test_the_worker_measures_the_embedding_of_a_release_that_names_one(tmp_path: Path, known: bool) -> None:
    trained = digits.train()
    (tmp_path / "model.onnx").write_bytes(digits.with_hidden(trained.onnx_bytes))
    hidden = np.random.default_rng(1).normal(size=(50, 32)).astype(np.float32)  # of any reference
    along = embedding.fitted("hidden", hidden)
    golden = io.BytesIO()
    np.savez(golden, allow_pickle=False, **(embedding.members(along) if known else {}))
    (tmp_path / "golden.npz").write_bytes(golden.getvalue())
    async with endpoint(tmp_path / "state") as running:
        await running.serving.load(model_file(tmp_path / "model.onnx", "1.0.0", inputs=INPUTS, outputs=OUTPUTS))
        await running.serving.route("digits", "1.0.0")
        entry = {"name": "image", "shape": [2, 8, 8], "datatype": "FP32", "data": trained.live_x[:2].ravel().tolist()}
        answer = await asyncio.to_thread(post, running, "infer", {"id": "one", "inputs": [entry]})
        outputs = {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}  # type: ignore[attr-defined]
        classes = outputs["scores"].argmax(axis=1).tolist()
        await asyncio.to_thread(post, running, "feedback", {"id": "one", "label": classes})
        await running.until(lambda: {type(one) for one in running.seen} >= {Sample, Feedback})
    (sample,) = [one for one in running.seen if isinstance(one, Sample)]
    assert list(sample.features["class.predicted"]) == classes
    assert all(one.correct for one in running.seen if isinstance(one, Feedback))
    if not known:
        assert not [name for name in sample.features if name.startswith("embedding")]
        return
    for name, values in embedded(outputs["hidden"].astype(np.float32), along).items():
        assert sample.features[name] == pytest.approx(values.tolist(), rel=1e-4, abs=1e-4)
