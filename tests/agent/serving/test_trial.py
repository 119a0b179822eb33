"""The trial of a candidate in its throw-away process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from agent.serving import interpreter
from shared.manifest import Tensor
from tests.agent.serving.kit import Digits, save_model


def attempt(model: Path, golden: Path, **changes: Any) -> dict[str, Any]:
    request = {
        "model": str(model),
        "golden": str(golden),
        "providers": ["CPUExecutionProvider"],
        "threads": 1,
        "tolerance": {"absolute": 1e-4, "relative": 1e-3},
        "memory_bytes": 4 * 1024**3,
        **changes,
    }
    done = subprocess.run(
        interpreter.command("agent.serving.trial"),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def golden(tmp_path: Path, digits: Digits, digits_model: Path) -> Path:
    session = onnxruntime.InferenceSession(str(digits_model), providers=["CPUExecutionProvider"])
    scores = session.run(None, {"image": digits.images[:8]})[0]
    return save_golden(tmp_path / "golden.npz", digits.images[:8], scores)


def save_golden(path: Path, images: np.ndarray, scores: np.ndarray) -> Path:
    np.savez(path, **{"input.image": images, "output.scores": scores})
    return path


def test_the_published_model_passes(digits_model: Path, golden: Path) -> None:
    verdict = attempt(digits_model, golden)
    assert verdict["passed"], verdict
    assert verdict["reason"] is None
    assert verdict["provider"] == "CPUExecutionProvider"
    assert verdict["latency_ms"] > 0
    assert verdict["worst"]["scores"]["absolute"] < 1e-5


def test_other_answers_fail(digits_model: Path, golden: Path, digits: Digits) -> None:
    with np.load(golden) as found:
        scores = found["output.scores"].copy()
    scores[3, 4] += 0.01
    verdict = attempt(digits_model, save_golden(golden, digits.images[:8], scores))
    assert (verdict["passed"], verdict["reason"]) == (False, "E_GOLDEN_MISMATCH")
    assert "1 of 80 values" in verdict["detail"]


def test_another_shape_fails(digits_model: Path, golden: Path, digits: Digits) -> None:
    verdict = attempt(digits_model, save_golden(golden, digits.images[:8, 0], np.zeros((8, 10), np.float32)))
    assert verdict["reason"] == "E_SHAPE"
    np.savez(golden, **{"input.image": digits.images[:8]})
    assert attempt(digits_model, golden)["reason"] == "E_SHAPE"


def test_answers_that_are_not_finite_fail(tmp_path: Path) -> None:
    tensors = (Tensor(name="x", datatype="FP32", shape=(-1, 2)),)
    path, file = tmp_path / "log.onnx", tmp_path / "golden.npz"
    save_model(
        path,
        [helper.make_node("Log", ["x"], ["y"])],
        inputs=tensors,
        outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    np.savez(file, **{"input.x": np.array([[-1, 2]], np.float32), "output.y": np.zeros((1, 2), np.float32)})
    assert attempt(path, file)["reason"] == "E_NOT_FINITE"


def test_a_file_that_is_no_model_does_not_load(tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x08\x08nonsense")
    assert attempt(path, golden)["reason"] == "E_LOAD"


def test_a_provider_that_is_not_here_is_not_replaced_silently(digits_model: Path, golden: Path) -> None:
    verdict = attempt(digits_model, golden, providers=["TensorrtExecutionProvider"])
    assert verdict["reason"] == "E_PROVIDER"
    assert "TensorrtExecutionProvider" in verdict["detail"]
    assert attempt(digits_model, golden, providers=["TensorrtExecutionProvider", "CPUExecutionProvider"])["passed"]


def test_memory_is_limited(tmp_path: Path) -> None:
    tensors = (Tensor(name="n", datatype="INT64", shape=(1,)),)
    path, file = tmp_path / "bomb.onnx", tmp_path / "golden.npz"
    save_model(
        path,
        [helper.make_node("ConstantOfShape", ["n"], ["y"])],
        inputs=tensors,
        outputs=(Tensor(name="y", datatype="FP32", shape=(-1,)),),
    )
    np.savez(file, **{"input.n": np.array([3_000_000_000], np.int64), "output.y": np.zeros(1, np.float32)})
    verdict = attempt(path, file, memory_bytes=2 * 1024**3)
    assert verdict["reason"] == "E_LOAD", verdict
