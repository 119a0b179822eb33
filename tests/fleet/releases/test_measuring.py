"""Running a model over its reference data, and what is packed from it."""

import io
import resource
from datetime import UTC, datetime

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fleet.releases import packing, reference_run
from fleet.releases.reading import read_model
from fleet.releases.reference_data import ReferenceDataError, read_reference
from fleet.releases.reference_run import ModelRunError
from shared import chunking
from shared.manifest import Manifest
from tests.simulators import digits

FLOAT = TensorProto.FLOAT
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def model(nodes, inputs, outputs, initializers=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value(name, FLOAT, shape) for name, shape in inputs.items()],
        [value(name, FLOAT, shape) for name, shape in outputs.items()],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def measure(onnx, *, timeout=60.0, **arrays):
    facts = read_model("m.onnx", onnx)
    file = io.BytesIO()
    np.savez(file, **arrays)
    inputs, labels = read_reference(file.getvalue(), facts.inputs)
    return facts, reference_run.run(
        onnx, inputs, labels, declared=facts.inputs, golden_rows=32, timeout_seconds=timeout
    )


def endless():
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Cos", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, ["n", 2]),
        ],
    )
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    yes = numpy_helper.from_array(np.array(True), "yes")
    return model([loop], {"x": ["n", 2]}, {"y": ["n", 2]}, [yes])


def test_a_model_that_never_ends_is_given_up():
    with pytest.raises(ModelRunError, match="did not finish"):
        measure(endless(), timeout=3.0, x=np.ones((4, 2), np.float32))


def test_a_model_that_eats_all_memory_harms_nobody():
    shape = numpy_helper.from_array(np.array([2**21, 2**12], np.int64), "shape")  # 32 GiB
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ModelRunError):
        measure(model(nodes, {"x": ["n", 2]}, {"y": ["n", 2]}, [shape]), x=np.ones((4, 2), np.float32))
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_an_operator_that_does_not_exist_is_explained():
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    with pytest.raises(ModelRunError, match="NoSuchOperator"):
        measure(model([node], {"x": ["n", 2]}, {"y": ["n", 2]}), x=np.ones((4, 2), np.float32))


def test_a_model_of_fixed_batch_is_run_in_its_own_size():
    softmax = helper.make_node("Softmax", ["x"], ["y"])
    _, found = measure(model([softmax], {"x": [4, 3]}, {"y": [4, 3]}), x=np.random.rand(10, 3).astype(np.float32))
    golden = np.load(io.BytesIO(found.golden))
    assert golden["input.x"].shape == golden["output.y"].shape == (4, 3)
    assert len(found.features["output.confidence"]) == 8  # two whole batches of ten rows


def test_fewer_rows_than_a_fixed_batch_are_refused():
    softmax = helper.make_node("Softmax", ["x"], ["y"])
    with pytest.raises(ReferenceDataError, match="batches of 4"):
        measure(model([softmax], {"x": [4, 3]}, {"y": [4, 3]}), x=np.ones((3, 3), np.float32))


def test_an_output_without_rows_is_no_feature():
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)]
    facts, found = measure(model(nodes, {"x": ["n", 3]}, {"y": None}), x=np.ones((10, 3), np.float32))
    assert set(found.features) == {"input.mean", "input.spread", "input.missing"}
    package = pack(facts, found, b"onnx" * 10)
    assert package.manifest.outputs[0].shape == ()


def test_two_inputs_one_of_them_called_y():
    add = helper.make_node("Add", ["a", "y"], ["z"])
    onnx = model([add], {"a": ["n", 3], "y": ["n", 3]}, {"z": ["n", 3]})
    _, found = measure(onnx, a=np.ones((10, 3), np.float32), y=np.ones((10, 3), np.float32))
    assert found.accuracy is None


def pack(facts, measured, onnx, key=b"k" * 32):
    label = packing.Label("digits", "1.0.0")
    return packing.pack(label, onnx, facts, measured, counter=1, content_key=key, now=NOW)


def test_a_package_is_what_its_manifest_says():
    trained = digits.train()
    facts, found = measure(trained.onnx_bytes, image=trained.reference_x, y=trained.reference_y)
    onnx = trained.onnx_bytes + bytes(range(256)) * 12_000  # three chunks
    package = pack(facts, found, onnx)
    manifest = Manifest.parse(package.data)
    artifact = manifest.artifacts["model"]
    assert len(artifact.chunks) >= 3
    key = chunking.artifact_key(b"k" * 32, "model")
    plain = b"".join(
        chunking.unseal(package.chunks[chunk.id], key=key, artifact="model", index=index,
                        count=len(artifact.chunks), plain_bytes=chunk.plain_bytes)
        for index, chunk in enumerate(artifact.chunks)
    )  # fmt: skip
    assert plain == onnx
    assert manifest.sealed_bytes == sum(map(len, package.chunks.values()))
    assert manifest.metrics["accuracy"] == pytest.approx(found.accuracy)
    assert found.accuracy > 0.85


def test_a_release_lets_tensorrt_compute_in_16_bits_only_when_its_publisher_said_so():
    trained = digits.train()
    facts, found = measure(trained.onnx_bytes, image=trained.reference_x)
    assert not pack(facts, found, trained.onnx_bytes).manifest.half_precision
    label = packing.Label("digits", "1.0.0", fp16=True)
    package = packing.pack(label, trained.onnx_bytes, facts, found, counter=1, content_key=b"k" * 32, now=NOW)
    assert Manifest.parse(package.data).half_precision


def test_the_baseline_holds_every_row_once():
    trained = digits.train()
    _, found = measure(trained.onnx_bytes, image=trained.reference_x)
    baseline = packing.baseline_of(packing.Label("digits", "1.0.0"), found)
    rows = len(trained.reference_x)
    assert {sum(feature.counts) + feature.missing for feature in baseline.features} == {rows}
    assert {feature.name: feature.group for feature in baseline.features} == {
        "input.brightness": "input",
        "input.contrast": "input",
        "input.sharpness": "input",
        "output.confidence": "output",
        "output.entropy": "output",
        "output.margin": "output",
        "class.predicted": "class",
    }


def test_the_same_model_measured_twice_gives_the_same_golden_outputs_and_baseline():
    trained = digits.train()
    first, second = (measure(trained.onnx_bytes, image=trained.reference_x)[1] for _ in range(2))
    label = packing.Label("digits", "1.0.0")
    assert packing.baseline_of(label, first) == packing.baseline_of(label, second)
    assert np.load(io.BytesIO(first.golden))["output.scores"].tobytes() == (
        np.load(io.BytesIO(second.golden))["output.scores"].tobytes()
    )


def test_a_detector_has_a_baseline_of_its_boxes_and_no_classes():
    corners = np.tile(np.array([0, 0, 2, 3], np.float32), (5, 1))
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["scores"]),
        helper.make_node("Unsqueeze", ["x", "last"], ["tall"]),
        helper.make_node("Mul", ["tall", "corners"], ["boxes"]),
    ]
    arrays = {"half": np.array(0.5, np.float32), "last": np.array([2], np.int64), "corners": corners}
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    x = np.tile(np.array([2.0, 2.0, 2.0, 0.5, 0.5], np.float32), (10, 1))
    proto = model(nodes, {"x": ["n", 5]}, {"boxes": ["n", 5, 4], "scores": ["n", 5]}, constants)
    _, found = measure(proto, x=x)
    assert found.features["output.count"].tolist() == [3.0] * 10
    assert found.features["output.area"].tolist() == [24.0] * 10
    assert (found.classes, "class.predicted" in found.features) == (0, False)
