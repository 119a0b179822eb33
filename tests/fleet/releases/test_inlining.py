"""Weights in other files are taken into the model; what cannot be had, or lies elsewhere, is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fleet.releases.inlining import MAX_FILE_BYTES, inlined
from fleet.releases.weights import gathered
from fleet.store import releases as store
from shared.delta.offer import offers
from shared.identifiers import sha256
from shared.manifest import Manifest
from shared.onnx_scan import scan
from shared.onnx_wire import OnnxError
from tests.simulators import digits


def model() -> onnx.ModelProto:
    """Weights among the initializers, in a node and in a branch."""
    chance = np.random.default_rng(3)

    def weights(name: str, size: int) -> onnx.TensorProto:
        return numpy_helper.from_array(chance.normal(size=(size, 8)).astype(np.float32), name)

    inner = helper.make_graph([helper.make_node("Constant", [], ["b"], value=weights("b", 300))], "branch", [], [])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weights("c", 200)),
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(nodes, "g", [], [], initializer=[weights("w", 400), weights("s", 1)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def values(data: bytes) -> list[tuple[str, bytes]]:
    nodes = list(onnx.load_from_string(data).graph.node)
    inner = nodes[1].attribute[0].g.node[0].attribute[0].t
    tensors = [*onnx.load_from_string(data).graph.initializer, nodes[0].attribute[0].t, inner]
    return [(tensor.name, numpy_helper.to_array(tensor).tobytes()) for tensor in tensors]


@pytest.mark.parametrize("one_file", [True, False])
def test_a_model_with_weights_in_other_files_becomes_the_model_as_one_file(tmp_path, one_file):
    whole = model()
    path = tmp_path / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, all_tensors_to_one_file=one_file, size_threshold=100,
              convert_attribute=True)  # fmt: skip
    assert len(list(tmp_path.iterdir())) > 1
    data = path.read_bytes()
    with pytest.raises(OnnxError, match="outside the file"):
        scan(data)
    found = gathered(data, tmp_path)
    assert values(found) == values(whole.SerializeToString())
    assert b"location" not in found
    assert gathered(found, tmp_path) == found


def test_a_file_that_has_all_or_is_no_model_stays_as_it_is():
    for data in (model().SerializeToString(), b"", b"\x3a\xff\xff\xff", bytes(range(256))):
        assert inlined(data, lambda place: pytest.fail(str(place))) == data


def outside(**said: str) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    return helper.make_model(helper.make_graph([], "g", [], [], initializer=[tensor])).SerializeToString()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"location": "../secret"}, "not in the model's folder"),
        ({"location": "/etc/hostname"}, "not in the model's folder"),
        ({"location": "link"}, "not in the model's folder"),
        ({"location": "none"}, "cannot be read"),
        ({"location": ""}, "cannot be read: not a file"),
        ({"location": "w\0"}, "a place that cannot be"),
        ({"location": "w", "offset": "9" * 30}, "a place that cannot be"),
        ({"location": "w", "length": "9" * 12}, "more than 2147483647 bytes"),
        ({"location": "w", "length": "17"}, "ends before the weights do: 16 of 17 bytes at 0"),
        ({"location": "w", "offset": "8", "length": "16"}, "ends before the weights do"),
        ({"location": "w", "offset": "x"}, "without a place that can be read"),
        ({"location": "w", "offset": "-1"}, "a place that cannot be"),
        ({"offset": "0"}, "without a place that can be read"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_with_the_reason(tmp_path, said, why):
    (tmp_path / "secret").write_bytes(b"s" * 16)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w").write_bytes(b"w" * 16)
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OnnxError, match=why):
        gathered(outside(**said), folder)


def test_the_rest_of_a_file_is_taken_where_no_length_is_said(tmp_path):
    (tmp_path / "w").write_bytes(b"0" * 4 + b"w" * 16)
    (tensor,) = onnx.load_from_string(gathered(outside(location="w", offset="4"), tmp_path)).graph.initializer
    assert (tensor.raw_data, tensor.data_location) == (b"w" * 16, TensorProto.DEFAULT)


def test_more_than_one_file_can_hold_is_refused():
    class Large(bytes):
        def __len__(self) -> int:
            return MAX_FILE_BYTES

    with pytest.raises(OnnxError, match="more than 2147483647 bytes"):
        inlined(outside(location="w"), lambda _: Large())


def test_a_tensor_that_has_its_weights_twice_is_refused():
    doubled = onnx.load_from_string(outside(location="w"))
    doubled.graph.initializer[0].raw_data = b"w" * 16
    with pytest.raises(OnnxError, match="both inside and outside"):
        inlined(doubled.SerializeToString(), lambda _: b"w" * 16)


def test_a_model_with_weights_beside_it_is_published_as_one_file_with_a_delta(founded, tmp_path):
    first = digits.train(hidden=128)
    _, data = founded.files(first)
    founded.publish("1.0.0", first)
    model = onnx.load_from_string(first.onnx_bytes)
    for row in model.graph.initializer:
        row.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(row) * np.float32(1.001), row.name))
    path = tmp_path / "split.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=100)
    told = founded.asks("model", "publish", "digits", "1.1.0", str(path), "--reference", data)
    assert told["published"]
    assert not founded.asks("model", "publish", "digits", "1.1.0", str(path), "--reference", data)["published"]
    assert founded.asks("model", "verify", "digits", "1.1.0", str(path))["verified"]
    assert founded.asks("model", "diff", founded.files(first)[0], str(path))["ratio"] < 0.1
    release = founded.write(store.find, "digits", "1.1.0")
    assert Manifest.parse(release.manifest).artifacts["model"].digest == sha256(gathered(path.read_bytes(), tmp_path))
    role = json.loads(founded.write(store.document, "model-digits").data)
    assert len(offers(role["signed"]["targets"]["digits/1.1.0/manifest.json"]["custom"])) == 1
