"""Models that want to read, to explode, to hang or to crash, all made here and the same each time.

    CORPUS[name].make(folder)      the bytes of the file; what it points to is put into or beside `folder`
    CORPUS[name].stopped           by what on the way of a release: scan, trial, or nothing (it answers as published)

Each is the tiny model of `release_repository` (8 numbers in, 3 out) with one thing wrong, so that its golden file is
the one of that model: what is harmless answers as published, what is merely another model does not. The files that
are damaged or no model at all are in `hostile_bytes`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.simulators.release_repository import golden_of, tiny_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
SECRET: Final = np.full((8, 3), 0.25, np.float32).tobytes()  # as long as the weights that it is read for
IN_MEMORY: Final = "*/_ORT_MEM_ADDR_/*"  # onnxruntime's own mark: the offset is an address in memory


class Stopped(Enum):
    """Where a file's way to serving ends."""

    SCAN = "the scan"
    TRIAL = "the self-test"
    NOWHERE = "nothing: it answers as published"


@dataclass(frozen=True)
class Hostile:
    make: Callable[[Path], bytes]
    stopped: Stopped
    hangs: bool = False  # the trial ends by its time limit, with or without the scan


def good() -> bytes:
    """The model that all others started as."""
    return tiny_model(0)


@cache
def golden() -> bytes:
    """Its golden file."""
    return golden_of(good())


def published(folder: Path, case: Hostile) -> tuple[Path, Path]:
    """Model and golden file in a folder of their own below `folder`, a secret above them."""
    slot = folder / "slot"
    slot.mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    model, answers = slot / "model.onnx", slot / "golden.npz"
    model.write_bytes(case.make(slot))
    answers.write_bytes(golden())
    return model, answers


# Building blocks


def edited(change: Callable[[ModelProto], object]) -> Callable[[Path], bytes]:
    """The good model after `change`."""

    def make(_: Path) -> bytes:
        model = onnx.load_from_string(good())
        change(model)
        return bytes(model.SerializeToString())

    return make


def beside(
    nodes: Sequence[NodeProto], result: str, *, constants: Sequence[TensorProto] = (), functions: Sequence[Any] = ()
) -> Callable[[Path], bytes]:
    """`nodes` compute the number `result`, which is added to what the good model answers."""

    def change(model: ModelProto) -> None:
        model.graph.node[-1].output[0] = "quick"
        model.graph.node.extend([*nodes, helper.make_node("Add", ["quick", result], ["y"])])
        model.graph.initializer.extend(constants)
        model.functions.extend(functions)
        if functions:
            model.opset_import.append(helper.make_opsetid("mine", 1))

    return edited(change)


def constant(name: str, values: object, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def total(name: str) -> NodeProto:
    """Of everything in the tensor `name`, so that none of it may be left out."""
    return helper.make_node("ReduceSum", [name], ["added"], keepdims=0)


def value(name: str, kind: int, shape: Sequence[int] | None = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


# Files of others


def outside(location: str, *, offset: int = 0, entry: bool = True) -> TensorProto:
    """The weights, to be read at `location`."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[8, 3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(len(SECRET)))):
        if entry:
            tensor.external_data.add(key=key, value=text)
    return tensor


def weights_from(location: str, **where: Any) -> Callable[[Path], bytes]:
    def change(model: ModelProto) -> None:
        model.graph.initializer[0].CopyFrom(outside(location, **where))

    return edited(change)


def linked(location: str, link: Callable[[Path, Path], object]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        link(folder / location, folder.parent / "secret")
        return weights_from(location)(folder)

    return make


def through_a_folder(folder: Path) -> bytes:
    (folder / "a").mkdir()
    return weights_from("a/../../secret")(folder)


def in_a_constant(location: str) -> Callable[[Path], bytes]:
    """The weights as an attribute of a node instead of an initializer."""

    def change(model: ModelProto) -> None:
        del model.graph.initializer[:]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=outside(location)))

    return edited(change)


def sparse(location: str) -> Callable[[Path], bytes]:
    def change(model: ModelProto) -> None:
        del model.graph.initializer[:]
        values = outside(location)
        del values.dims[:]
        values.dims.append(24)
        indices = helper.make_tensor("", INT64, [24], range(24))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 3]))

    return edited(change)


def in_a_branch(location: str) -> Callable[[Path], bytes]:
    return beside(branches([helper.make_node("Constant", [], ["inner"], value=outside(location)), total("inner")]), "z")


def in_a_function(location: str) -> Callable[[Path], bytes]:
    body = [helper.make_node("Constant", [], ["inner"], value=outside(location)), total("inner")]
    return beside([helper.make_node("Read", ["x"], ["z"], domain="mine")], "z", functions=[function("Read", body)])


def in_training(model: ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(outside("../secret"))


def compiled(model: ModelProto) -> None:
    """The whole graph as a blob of some vendor's, in a file that it names."""
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="../secret", embed_mode=0, source="Qnn"
    )
    del model.graph.node[:]
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def own_settings(model: ModelProto) -> None:
    """onnxruntime may take session options from here, where its environment says so."""
    model.metadata_props.add(key="ort_config", value='{"session_options": {"optimized_model_filepath": "../stolen"}}')


# Time, memory, structure


def branches(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """`z`, by an If of which one branch holds `nodes` (their result is `added`)."""
    result = [value("added", FLOAT)]
    other = [helper.make_node("Constant", [], ["added"], value=constant("", 0.0))]
    chosen = helper.make_node("Constant", [], ["chosen"], value=constant("", True, np.bool_))
    then, rest = helper.make_graph(nodes, "then", [], result), helper.make_graph(other, "else", [], result)
    return [chosen, helper.make_node("If", ["chosen"], ["z"], then_branch=then, else_branch=rest)]


def nested_ifs(depth: int) -> Callable[[Path], bytes]:
    """An If in an If, so many times, around the number nought."""

    def level(at: int) -> GraphProto:
        name = f"n{at}"
        nodes = [helper.make_node("Constant", [], [name], value=constant("", 0.0))]
        if at < depth:
            nodes = [helper.make_node("If", ["which"], [name], then_branch=level(at + 1), else_branch=leaf(name))]
        return helper.make_graph(nodes, f"g{at}", [], [value(name, FLOAT)])

    def leaf(name: str) -> GraphProto:
        nodes = [helper.make_node("Constant", [], [name + "e"], value=constant("", 0.0))]
        return helper.make_graph(nodes, name, [], [value(name + "e", FLOAT)])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Less", ["most", "huge"], ["which"]),
        helper.make_node("If", ["which"], ["z"], then_branch=level(1), else_branch=leaf("z")),
    ]
    return beside(nodes, "z", constants=[constant("huge", 1e30)])


def turns(count: str, results: Sequence[str], *, keeps: bool = False) -> NodeProto:
    """A Loop of as many turns as the tensor `count` says (endless without), from `start`. `keeps` what each made."""
    body = [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Sqrt", ["v"], ["w_out"])]
    outputs = [value("still", BOOL), value("w_out", FLOAT)]
    if keeps:
        body.append(helper.make_node("Expand", ["v", "wide"], ["kept"]))
        outputs.append(value("kept", FLOAT, None))
    inputs = [value("i", INT64), value("on", BOOL), value("v", FLOAT)]
    inner = helper.make_graph(body, "body", inputs, outputs)
    return helper.make_node("Loop", [count, "true", "start"], results, body=inner)


def turning() -> list[TensorProto]:
    """The constants that such a Loop needs."""
    return [constant("true", True, np.bool_), constant("start", 2.0), constant("wide", [1_000_000], np.int64)]


def loop(count: int | None, *, keeps: bool = False) -> Callable[[Path], bytes]:
    """A Loop with so many turns; None: for as long as a condition holds that always does."""
    node = turns("" if count is None else "count", ["end", "all"] if keeps else ["end"], keeps=keeps)
    constants = [*turning(), constant("count", count or 0, np.int64)]
    return beside([node, total("all" if keeps else "end")], "added", constants=constants)


def function(name: str, nodes: Sequence[NodeProto], *, domain: str = "mine", result: str = "added") -> FunctionProto:
    opsets = [helper.make_opsetid(*each) for each in (("", 17), ("ai.onnx", 17), ("mine", 1))]
    return helper.make_function(domain, name, ["x"], [result], nodes, opsets)


def calling(*names: str, domain: str = "mine") -> list[NodeProto]:
    """Calls that hand the result of each to the next."""
    steps = ["x", *(f"c{at}" for at in range(1, len(names))), "added"]
    return [helper.make_node(name, [steps[at]], [steps[at + 1]], domain=domain) for at, name in enumerate(names)]


def functions(
    bodies: dict[str, list[NodeProto]], *, called: str | None = "F0", domain: str = "mine", calls: str = "mine"
) -> Callable[[Path], bytes]:
    """Local functions, of which the graph calls one; None: none."""
    made = [function(name, nodes, domain=domain) for name, nodes in bodies.items()]
    first = [helper.make_node(called, ["x"], ["inlined"], domain=calls)] if called else []
    last = helper.make_node("ReduceMin", ["inlined" if called else "x"], ["least"], keepdims=0)
    zero = helper.make_node("Mul", ["least", "none"], ["z"])
    return beside([*first, last, zero], "z", constants=[constant("none", 0.0)], functions=made)


def unfolding(depth: int, times: int, *, calls: str = "mine") -> dict[str, list[NodeProto]]:
    """Each function calls the next `times` times."""
    found = {f"F{at}": calling(*[f"F{at + 1}"] * times, domain=calls) for at in range(depth)}
    return {**found, f"F{depth}": calling("Relu", domain="")}


def shape_bomb(size: Sequence[int], *, fed: bool = False) -> Callable[[Path], bytes]:
    """A tensor of this shape; `fed`: only known at run time, so that nothing can be computed while loading."""
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["big"]), total("big")]
    constants = [constant("shape", size, np.int64), constant("one", [1], np.int64)]
    ones = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Slice", ["dims", "one", "two"], ["eight"]),
        helper.make_node("Div", ["eight", "eight"], ["fed"]),
        helper.make_node("Mul", ["shape", "fed"], ["size"]),
    ]
    first = ones if fed else [helper.make_node("Identity", ["shape"], ["size"])]
    return beside([*first, *nodes], "added", constants=[*constants, constant("two", [2], np.int64)])


def folded(operator: str, inputs: Sequence[TensorProto], **attributes: object) -> Callable[[Path], bytes]:
    """An operator on constants with a huge result, which onnxruntime computes while it loads."""
    names = [tensor.name for tensor in inputs]
    return beside([helper.make_node(operator, names, ["big"], **attributes), total("big")], "added", constants=inputs)


def divided() -> Callable[[Path], bytes]:
    """The smallest integer by minus one: the processor stops a process for that (x86), in any onnxruntime so far."""
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Min", ["dims", "least"], ["low"]),
        helper.make_node("Div", ["low", "minus"], ["over"]),
        helper.make_node("Cast", ["over"], ["real"], to=FLOAT),
        total("real"),
    ]
    return beside(nodes, "added", constants=[constant("least", -(2**63), np.int64), constant("minus", -1, np.int64)])


def long_chain(model: ModelProto) -> None:
    """Thousands of nodes that change nothing."""
    model.graph.node[-1].output[0] = "n0"
    nodes = [helper.make_node("Max", [f"n{at}", "never"], [f"n{at + 1}"]) for at in range(5000)]
    model.graph.node.extend([*nodes, helper.make_node("Identity", ["n5000"], ["y"])])
    model.graph.initializer.append(constant("never", -1.0))


# Other models


def weights(values: np.ndarray) -> Callable[[Path], bytes]:
    return edited(lambda model: model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w")))


def other_input(model: ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"


def other_output(model: ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"


def more_outputs(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
    model.graph.output.append(value("z", FLOAT, [None, 3]))  # type: ignore[list-item]


def other_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = INT64
    model.graph.node[0].input[0] = "real"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["real"], to=FLOAT))


def transposed(model: ModelProto) -> None:
    model.graph.node[-1].output[0] = "upright"
    model.graph.node.append(helper.make_node("Transpose", ["upright"], ["y"]))


def text_output(model: ModelProto) -> None:
    model.graph.node[-1].output[0] = "number"
    model.graph.node.append(helper.make_node("Cast", ["number"], ["y"], to=TensorProto.STRING))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING


def sequence_output(model: ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", FLOAT, None))
