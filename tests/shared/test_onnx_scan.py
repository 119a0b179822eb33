"""Good models are described; whatever is never loaded is refused with a reason; no bytes crash the scan."""

import contextlib
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from shared import onnx_wire
from shared.chunking import cut
from shared.manifest import Tensor
from shared.onnx_scan import OnnxError, scan
from tests.simulators import digits

FLOAT = TensorProto.FLOAT


def model(nodes=None, *, inputs=None, outputs=None, initializers=(), functions=(), opsets=(("", 17),)):
    graph = helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        inputs if inputs is not None else [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        outputs if outputs is not None else [helper.make_tensor_value_info("y", FLOAT, ["n", 4])],
        list(initializers),
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def test_a_real_model_is_described():
    data = digits.train().onnx_bytes
    facts = scan(data)
    assert facts.inputs == (Tensor(name="image", datatype="FP32", shape=(-1, 8, 8)),)
    assert facts.outputs == (Tensor(name="scores", datatype="FP32", shape=(-1, 10)),)
    assert (facts.ir_version, facts.opset) == (8, {"ai.onnx": 17})
    assert len(facts.borders) == 4
    assert list(facts.borders) == sorted(facts.borders)


def test_cuts_fall_on_the_ends_of_tensors():
    weights = [numpy_helper.from_array(np.ones(200_000, np.float32) * i, f"w{i}") for i in range(4)]
    data = model(initializers=weights).SerializeToString()
    facts = scan(data)
    cuts = [end for _, end in cut(len(data), facts.borders)]
    assert {border for border in facts.borders if border != facts.borders[-1]} <= set(cuts)


def test_inputs_with_an_initializer_are_not_inputs():
    both = [helper.make_tensor_value_info("x", FLOAT, [1, 4]), helper.make_tensor_value_info("w", FLOAT, [4])]
    add = helper.make_node("Add", ["x", "w"], ["y"])
    found = scan(
        model(
            [add], inputs=both, initializers=[numpy_helper.from_array(np.ones(4, np.float32), "w")]
        ).SerializeToString()
    )
    assert [tensor.name for tensor in found.inputs] == ["x"]
    assert found.inputs[0].shape == (1, 4)


def test_an_output_without_declared_shape_is_kept():
    value = helper.make_tensor_value_info("y", FLOAT, None)
    assert scan(model(outputs=[value]).SerializeToString()).outputs[0].shape == (-1,)


def test_local_functions_are_allowed():
    twice = function("F0", "Relu", 2)
    assert scan(model([call("F0")], functions=[twice], opsets=(("", 17), ("mine", 1))).SerializeToString())


def call(name, domain="mine"):
    return helper.make_node(name, ["x"], ["y"], domain=domain)


def external(data_location):
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    if data_location:
        tensor.data_location = TensorProto.EXTERNAL
    else:
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../secret"
    return tensor


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(nodes):
    return [helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph(nodes, "t", [], []))]


def field(number, body):
    length, size = b"", len(body)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def function(name, called, times):
    nodes = [helper.make_node(called, ["a"], ["b"], domain="mine" if called[0] == "F" else "") for _ in range(times)]
    return helper.make_function("mine", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def shaped(dimensions):
    tensor = TensorProto(name="w", data_type=FLOAT)
    tensor.dims.extend(dimensions)
    return tensor


def other_name(nodes_domain, function_domain):
    """A function that calls itself: onnxruntime takes "" and "ai.onnx" for one domain."""
    body = helper.make_function(
        function_domain, "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain=nodes_domain)], []
    )
    return model([call("F", nodes_domain)], functions=[body])


def bfloat16():
    return helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1])


def sequence():
    return helper.make_tensor_sequence_value_info("y", FLOAT, None)


REFUSED = {
    "external-location": (lambda: model(initializers=[external(True)]), "outside the file"),
    "external-entry": (lambda: model(initializers=[external(False)]), "outside the file"),
    "external-in-attribute": (lambda: model([constant(external(False))]), "outside the file"),
    "external-in-subgraph": (
        lambda: model(branch([constant(external(True))])),
        "outside the file",
    ),
    "external-in-function": (
        lambda: model(functions=[helper.make_function("mine", "F", ["a"], ["c"], [constant(external(True))], [])]),
        "outside the file",
    ),
    "unknown-domain": (lambda: model([call("Evil", "evil.ops")]), "'evil.ops'"),
    "ep-context": (lambda: model([call("EPContext", "com.microsoft")]), "EPContext"),
    "recursive-function": (lambda: model([call("F0")], functions=[function("F0", "F0", 1)]), "calls itself"),
    "recursive-function-that-nobody-calls": (lambda: model(functions=[function("F0", "F0", 1)]), "calls itself"),
    "recursive-function-by-another-name": (lambda: other_name("ai.onnx", ""), "calls itself"),
    "recursive-function-by-the-short-name": (lambda: other_name("", "ai.onnx"), "calls itself"),
    "exploding-functions": (
        lambda: model(
            [call("F0")],
            functions=[*(function(f"F{i}", f"F{i + 1}", 4) for i in range(25)), function("F25", "Relu", 1)],
        ),
        "unfold",
    ),
    "negative-dimension": (lambda: model(initializers=[shaped([-5])]), "dimension -5"),
    "huge-tensor": (lambda: model(initializers=[shaped([2**16, 2**16])]), "elements"),
    "overflowing-tensor": (lambda: model(initializers=[shaped([2**40, 2**40, 2**40])]), "elements"),
    "many-dimensions": (lambda: model(initializers=[shaped([1] * 65)]), "more than 64 dimensions"),
    "many-opsets": (lambda: model(opsets=[("", 17), *((f"d{at}", 1) for at in range(64))]), "64 domains"),
    "sequence-output": (lambda: model(outputs=[sequence()]), "sequence"),
    "no-input-shape": (lambda: model(inputs=[helper.make_tensor_value_info("x", FLOAT, None)]), "no declared shape"),
    "no-inputs": (lambda: model(inputs=[]), "0 inputs"),
    "bfloat16": (lambda: model(inputs=[bfloat16()]), "element type 16"),
    "no-opset": (lambda: model(opsets=()), "no version"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_never_loaded_is_refused_with_a_reason(what):
    make, said = REFUSED[what]
    data = make().SerializeToString()
    with pytest.raises(OnnxError, match=said) as caught:
        scan(data)
    assert caught.value.code == "E_ONNX"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, world",
        b"\x0a",
        b"\x80" * 20,
        b"\x08\x08\x3a\x7f",
        b"\x3a\x00\x3a\x00",
        b"\x0b\x0c",
        b"\x00\x00",
        b"\x38\x01",
    ],
)
def test_malformed_bytes_are_refused(data):
    with pytest.raises(OnnxError):
        scan(data)


def test_every_cut_off_model_is_refused_or_lacks_nothing_needed():
    data = digits.train().onnx_bytes
    for length in [*range(600), *range(600, len(data) - 4, 97)]:
        with pytest.raises(OnnxError):
            scan(data[:length])


def test_deep_nesting_is_refused_before_it_costs_anything():
    graph = b""
    for _ in range(5000):  # graph in an attribute of a node of a graph
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(OnnxError, match="nested deeper"):
        scan(field(7, graph))


def test_a_million_fields_end_the_scan(monkeypatch):
    monkeypatch.setattr(onnx_wire, "MAX_FIELDS", 1000)
    with pytest.raises(OnnxError, match="fields"):
        scan(b"\x08\x08" * 2000)


def test_two_operator_names_in_one_node_are_refused():
    node = helper.make_node("Relu", ["x"], ["y"]).SerializeToString() + b"\x22\x09EPContext"
    graph = b"\x0a" + bytes([len(node)]) + node
    with pytest.raises(OnnxError, match="two names"):
        scan(b"\x08\x08\x3a" + bytes([len(graph)]) + graph)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_models_give_facts_or_a_refusal(data):
    mutated = bytearray(digits.train().onnx_bytes)
    head = st.integers(0, 500) | st.integers(9000, len(mutated) - 1) | st.integers(0, len(mutated) - 1)
    for place, value in data.draw(st.lists(st.tuples(head, st.integers(0, 255)), min_size=1, max_size=8)):
        mutated[place] = value
    with contextlib.suppress(OnnxError):
        scan(bytes(mutated))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_facts_or_a_refusal(data):
    with contextlib.suppress(OnnxError):
        scan(data)


def test_a_large_model_is_scanned_without_copying_it():
    big = numpy_helper.from_array(np.zeros(16_000_000, np.float32), "w")
    data = model(initializers=[big]).SerializeToString()
    start = time.perf_counter()
    scan(data)
    assert time.perf_counter() - start < 0.5
    assert onnx.load_from_string(data).graph.initializer[0].name == "w"
